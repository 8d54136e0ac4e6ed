package netfilter

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// CountRules counts the rules of each chain of a table of nftables, for IPv4, by the chain's name. Chains without rules are
// not among them, nor is it an error if there is no such table. The library would read what is in them too, and cannot
// read all that others, or we, write.
func (n Namespace) CountRules(table string) (map[string]int, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: n.FD()})
	if err != nil {
		return nil, fmt.Errorf("connect to nftables: %w", err)
	}
	defer conn.Close()
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)}})
	if err != nil {
		return nil, err
	}
	list, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE,
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, name...),
	})
	if err != nil {
		return nil, fmt.Errorf("list rules of nftables table %s: %w", table, err)
	}
	counts := map[string]int{}
	for _, m := range list {
		attributes, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("list rules of nftables table %s: %w", table, err)
		}
		of, chain := "", ""
		for attributes.Next() {
			switch attributes.Type() {
			case unix.NFTA_RULE_TABLE:
				of = attributes.String()
			case unix.NFTA_RULE_CHAIN:
				chain = attributes.String()
			}
		}
		if of == table {
			counts[chain]++
		}
	}
	return counts, nil
}
