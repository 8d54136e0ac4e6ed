package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay/rules/iptables"
	"github.com/cuemby/warren/internal/agent/overlay/rules/nft"
)

// socketBuffer, in bytes, holds the news of large changes.
const socketBuffer = 8 << 20

// Watch restores what others take away, until ctx ends: at once where the kernel tells of it, which it does of
// nftables and iptables-nft, and at the next look where it does not. It calls restored, unless that is nil,
// after everything was made anew.
func (r *Rules) Watch(ctx context.Context, restored func()) error {
	var news chan string // nil, and silent, where there are no nftables
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{
		NetNS: r.in.FD(), Groups: 1 << (unix.NFNLGRP_NFTABLES - 1),
	})
	if err != nil && r.kind == Nftables {
		return fmt.Errorf("listen to nftables: %w", err)
	}
	if err == nil {
		_ = conn.SetReadBuffer(socketBuffer) // or less: then more is missed, and looked for
		news = make(chan string, 1)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.listen(conn, news)
		}()
		defer func() {
			conn.Close()
			for range news { // let it end
			}
			<-ended
		}()
	}

	look := time.NewTicker(r.recheck)
	defer look.Stop()
	if r.told() {
		look.Stop()
	}
	spoilt := "" // the first look is for what happened before
	for {
		missing, err := r.repair(ctx, spoilt)
		switch {
		case err != nil && ctx.Err() == nil:
			r.log.WarnContext(ctx, "packet rules are not whole", "error", err)
		case missing && err == nil:
			r.log.InfoContext(ctx, "packet rules were taken away and are restored")
			if restored != nil {
				restored()
			}
		}
		again := after(err, r.recheck)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case spoilt = <-news:
		case <-look.C:
			spoilt = ""
		case <-again:
		}
	}
}

// told tells whether the kernel tells of all that others do to our rules.
func (r *Rules) told() bool {
	return r.shared.Told()
}

// after is the time to try again after an error, if there was one.
func after(err error, recheck time.Duration) <-chan time.Time {
	if err == nil {
		return nil
	}
	return time.After(min(recheck, time.Second))
}

// listen passes on which table another program has changed, or nothing where it cannot tell which. Of several
// changes that nobody has looked after yet it keeps one, unless they differ.
func (r *Rules) listen(conn *netlink.Conn, news chan string) {
	defer close(news)
	for {
		messages, err := conn.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return // closed
		}
		var changed []string
		if err != nil {
			changed = []string{""}
		}
		for _, m := range messages {
			if r.backend.Ours(m.Header.PID) || r.shared.Ours(m.Header.PID) {
				continue
			}
			if table, removes := concerns(m); table != "" && (removes || r.backend.Owns(table)) {
				changed = append(changed, table)
			}
		}
		for _, table := range slices.Compact(changed) {
			select {
			case news <- table:
			case pending := <-news:
				if table == "" || r.backend.Owns(pending) {
					table = pending
				}
				news <- table
			}
		}
	}
}

// concerns is the table that a message is about, if it may be of concern, and whether something was removed.
func concerns(m netlink.Message) (table string, removes bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 || m.Data[0] != unix.NFPROTO_IPV4 {
		return "", false
	}
	switch uint16(m.Header.Type) & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
		removes = true
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_NEWSET, unix.NFT_MSG_NEWSETELEM:
	default:
		return "", false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return "", false
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_TABLE_NAME { // the table's name has the same number in all of them
			table = attributes.String()
		}
	}
	if iptables.HasTable(table) || nft.HasTable(table) {
		return table, removes
	}
	return "", false
}
