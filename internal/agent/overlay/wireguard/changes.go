package wireguard

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// delta is what has to be done to a device, in this order. What is nil or zero stays as it is.
type delta struct {
	privateKey *wgtypes.Key
	port       *int
	peers      []peerDelta // those to be removed first
}

// peerDelta is what has to be done to a peer.
type peerDelta struct {
	key       wgtypes.Key
	what      doing
	endpoint  netip.AddrPort
	keepalive *time.Duration
	gained    []netip.Prefix
	lost      []netip.Prefix
	allowed   []netip.Prefix // all it is to have, for who can replace them only
}

type doing int

const (
	add doing = iota
	alter
	remove
)

func (d delta) empty() bool { return d.privateKey == nil && d.port == nil && len(d.peers) == 0 }

// changes returns the least that makes of a device that has one configuration a device that has another.
// Peers that are the same in both are not in it: to write to a peer costs at least a lock that its traffic
// needs, and to write it anew its session. Both configurations must be normal.
//
// An endpoint that is not wanted is left as it is; devices cannot forget one.
func changes(have, want Config) delta {
	var d delta
	if have.PrivateKey != want.PrivateKey {
		d.privateKey = &want.PrivateKey
	}
	if want.ListenPort != 0 && have.ListenPort != want.ListenPort {
		d.port = &want.ListenPort
	}
	had, wanted := byKey(have.Peers), byKey(want.Peers)
	for _, key := range inOrder(had) {
		if _, stays := wanted[key]; !stays {
			d.peers = append(d.peers, peerDelta{key: key, what: remove})
		}
	}
	for _, key := range inOrder(wanted) {
		peer, there := had[key]
		if change, differs := peerChanges(peer, wanted[key]); differs || !there {
			change.what = alter
			if !there {
				change.what = add
			}
			d.peers = append(d.peers, change)
		}
	}
	return d
}

func peerChanges(have, want Peer) (change peerDelta, differs bool) {
	change = peerDelta{
		key:     want.PublicKey,
		gained:  without(want.AllowedIPs, have.AllowedIPs),
		lost:    without(have.AllowedIPs, want.AllowedIPs),
		allowed: want.AllowedIPs,
	}
	if want.Endpoint.IsValid() && want.Endpoint != have.Endpoint {
		change.endpoint = want.Endpoint
	}
	if want.Keepalive != have.Keepalive {
		change.keepalive = &want.Keepalive
	}
	return change, change.endpoint.IsValid() || change.keepalive != nil || len(change.gained)+len(change.lost) > 0
}

func without(all, those []netip.Prefix) []netip.Prefix {
	gone := make(map[netip.Prefix]bool, len(those))
	for _, prefix := range those {
		gone[prefix] = true
	}
	var left []netip.Prefix
	for _, prefix := range all {
		if !gone[prefix] {
			left = append(left, prefix)
		}
	}
	return left
}

func byKey(peers []Peer) map[wgtypes.Key]Peer {
	keyed := make(map[wgtypes.Key]Peer, len(peers))
	for _, p := range peers {
		keyed[p.PublicKey] = p
	}
	return keyed
}

// inOrder has the same two configurations give the same changes.
func inOrder(peers map[wgtypes.Key]Peer) []wgtypes.Key {
	keys := make([]wgtypes.Key, 0, len(peers))
	for key := range peers {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b wgtypes.Key) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// sessionEnds is when a session is over that no handshake has renewed: REJECT_AFTER_TIME of the WireGuard
// protocol, in section 6.1 of its paper.
const sessionEnds = 180 * time.Second

// withEndpoints returns the configuration that a device has with the endpoints that count as those it has:
// not where its peers have moved to, but what was last wanted, so that a peer that has moved is left
// where it is until something else is wanted.
//
// What an earlier process wanted is not known. There, a peer with a session is where it is heard;
// without one, what is wanted now is the better guess.
func withEndpoints(have Config, status []PeerStatus, wanted map[wgtypes.Key]netip.AddrPort, want Config, now time.Time) Config {
	last := make(map[wgtypes.Key]time.Time, len(status))
	for _, s := range status {
		last[s.PublicKey] = s.LastHandshake
	}
	next := byKey(want.Peers)
	have.Peers = slices.Clone(have.Peers)
	for i := range have.Peers {
		p := &have.Peers[i]
		before, known := wanted[p.PublicKey]
		switch {
		case !p.Endpoint.IsValid():
			// It has none. Whatever is wanted is to be written.
		case known:
			p.Endpoint = before
		case now.Sub(last[p.PublicKey]) < sessionEnds:
			p.Endpoint = next[p.PublicKey].Endpoint
		}
	}
	return have
}
