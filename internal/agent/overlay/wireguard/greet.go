package wireguard

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// A peer that is added is greeted: asked to be kept alive, which begins with a packet. A node that has just drawn another
// key is not understood until the others know of it, and would try again only 5 s later (REKEY_TIMEOUT of the WireGuard
// protocol, in section 6.1 of its paper); so the others begin, as soon as they know.
//
// Two must not begin in the same moment, as they would when both have drawn another key and hear of the other's: each takes
// the other's first message and forgets its own, so that neither takes the answer, and they are silent for 5 s; or, in
// wireguard-go, one takes its own answer for the other's, and what is sent to it is dropped for 15 s (measured: one or the
// other 12 times in 40). So of two nodes that may both have drawn a key lately, one waits to be greeted. And a greeting that is
// not answered is repeated.
const (
	// lately is for how long a key is so new that others may be about to hear of it.
	lately = 10 * time.Second
	// For so long it is waited for an answer, by who greets and by who is to be greeted.
	greetingPatience = 200 * time.Millisecond
	greetedPatience  = 500 * time.Millisecond
	// With each repetition patience doubles. Beyond this WireGuard's own is no longer.
	mostPatience = 4 * time.Second
	// crowdPatience is added for each that is waited for: a machine has many handshakes to see to then.
	crowdPatience = 2 * time.Millisecond
)

// greetingKeepalive is taken back as soon as it has had a packet sent.
const greetingKeepalive = 25 * time.Second

// nowhere is the endpoint of a peer whose greeting is waited for (port 9 discards, RFC 863): what there is to send begins no
// handshake meanwhile, and waits. The greeting tells where the peer is.
var nowhere = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9)

// greeting is one that has not been seen to be answered, or to come, yet.
type greeting struct {
	next     time.Time // when it is to be repeated, or to be waited for no longer
	patience time.Duration
}

// writeGreeting writes changes and greets whom they add. The caller holds d.mu.
func (d *Device) writeGreeting(ctx context.Context, todo delta) error {
	now := time.Now()
	first, then := todo, delta{}
	first.peers = slices.Clone(todo.peers)
	for i := range first.peers {
		p := &first.peers[i]
		if p.what != add || !p.endpoint.IsValid() {
			continue
		}
		g, again := d.greetings[p.key]
		waits := !again && d.waitsFor(p.key, now)
		switch {
		case again:
			g.patience *= 2
		case waits:
			g.patience = greetedPatience
		default:
			g.patience = greetingPatience + time.Duration(len(first.peers))*crowdPatience
		}
		g.next = now.Add(g.patience)
		d.greetings[p.key] = g
		switch {
		case waits:
			p.endpoint = nowhere
		case p.keepalive == nil || *p.keepalive == 0:
			keepalive, none := greetingKeepalive, time.Duration(0)
			p.keepalive = &keepalive
			then.peers = append(then.peers, peerDelta{key: p.key, what: alter, keepalive: &none, allowed: p.allowed})
		}
	}
	if err := d.write(ctx, first); err != nil || then.empty() {
		return err
	}
	return d.write(ctx, then)
}

// waitsFor tells whether a peer's greeting is to be waited for: where both may have a new key, the one does whose key is the
// greater.
func (d *Device) waitsFor(peer wgtypes.Key, now time.Time) bool {
	own := d.config.PrivateKey.PublicKey()
	return now.Sub(d.keyed) < lately && bytes.Compare(own[:], peer[:]) > 0
}

// Unanswered tells when GreetAgain is to be called next; false where nobody's answer is waited for.
func (d *Device) Unanswered() (at time.Time, some bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, g := range d.greetings {
		if !some || g.next.Before(at) {
			at, some = g.next, true
		}
	}
	return at, some
}

// GreetAgain greets those peers that were added a while ago and with whom there has been no handshake yet. They are
// removed and added anew, as a device cannot be had to begin another handshake sooner than WireGuard does by itself.
func (d *Device) GreetAgain(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.greetAgain(ctx); err != nil {
		for key, g := range d.greetings { // later, at ease
			g.next = time.Now().Add(mostPatience)
			d.greetings[key] = g
		}
		return fmt.Errorf("begin handshakes of the WireGuard device %s again: %w", d.name, err)
	}
	return nil
}

func (d *Device) greetAgain(ctx context.Context) error {
	have, status, err := d.read(ctx)
	if err != nil {
		return err
	}
	silent := map[wgtypes.Key]bool{}
	for _, s := range status {
		silent[s.PublicKey] = s.LastHandshake.IsZero()
	}
	now := time.Now()
	again := map[wgtypes.Key]bool{}
	for key, g := range d.greetings {
		late := !now.Before(g.next)
		switch {
		case !silent[key] || late && 2*g.patience > mostPatience:
			delete(d.greetings, key)
		case late:
			again[key] = true
		}
	}
	if len(again) == 0 {
		return nil
	}
	without := have
	without.Peers = slices.DeleteFunc(slices.Clone(have.Peers), func(p Peer) bool { return again[p.PublicKey] })
	todo := changes(have, without)
	for _, p := range d.config.Peers {
		if again[p.PublicKey] {
			change, _ := peerChanges(Peer{}, p)
			change.what = add
			todo.peers = append(todo.peers, change)
		}
	}
	return d.writeGreeting(ctx, todo)
}
