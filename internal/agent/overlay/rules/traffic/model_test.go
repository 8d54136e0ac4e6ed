package traffic

import (
	"net/netip"
	"strings"
	"testing"
)

func node() Node {
	return Node{
		Bridge: "warren0", Device: "warren-wg", Addr: netip.MustParseAddr("10.208.3.1"), Subnet: netip.MustParsePrefix("10.208.3.0/24"),
		NodeRange: netip.MustParsePrefix("10.208.0.0/12"), VIPRange: netip.MustParsePrefix("10.224.0.0/16"),
	}
}

func TestWhatCannotBeIsRefusedWhole(t *testing.T) {
	n := node()
	for _, c := range []struct {
		change Change
		says   string
	}{
		{Change{Services: []Service{{}}}, "give its id"},
		{Change{Services: []Service{{ID: "one", VIP: netip.MustParseAddr("10.0.0.1")}}}, "vip 10.0.0.1: give one of the range 10.224.0.0/16"},
		{Change{Services: []Service{{ID: "one", Endpoints: addrs("10.0.0.1")}}}, "endpoint 10.0.0.1"},
		{Change{Services: []Service{{ID: "one", Published: []Published{{0, 80, TCP}}}}}, "give ports"},
		{Change{Services: []Service{{ID: "one", Published: []Published{{80, 80, 132}}}}}, "give tcp or udp"},
		{Change{Tasks: []Task{{Addr: n.Addr, Local: true}}}, "the node's own address"},
		{Change{Tasks: []Task{{Addr: netip.MustParseAddr(dAddr), Local: true}}}, "this node's subnet"},
		{Change{Tasks: []Task{{Addr: netip.MustParseAddr(aAddr)}}}, "this node's subnet"},
		{Change{Tasks: []Task{{}}}, "give it an address"},
	} {
		if err := c.change.Validate(n); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.change, err, c.says)
		}
	}
	n.VIPRange = netip.MustParsePrefix("10.208.9.0/24")
	if err := n.Validate(); err == nil || !strings.Contains(err.Error(), "apart from the node range") {
		t.Errorf("overlapping ranges: %v", err)
	}
}

func TestSharesThatCannotBeAreRefused(t *testing.T) {
	n := node()
	for want, s := range map[string]Service{
		"endpoints beside shares": {ID: "s", Endpoints: addrs(aAddr), Shares: []Share{{1, addrs(bAddr)}}},
		"weight 20000":            {ID: "s", Shares: []Share{{20000, addrs(bAddr)}}},
		"endpoint 192.0.2.1":      {ID: "s", Shares: []Share{{1, addrs("192.0.2.1")}}},
	} {
		if err := s.valid(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
