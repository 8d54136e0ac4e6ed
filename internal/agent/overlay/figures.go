package overlay

import (
	"context"
	"errors"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Figures are how the node's overlay stands, in numbers.
type Figures struct {
	Up bool
	// VIPs are virtual addresses that the node knows, Tasks those that it may send new connections to, here and elsewhere.
	VIPs, Tasks int
	// TakenPorts are published ports that another program has.
	TakenPorts int
	// Peers are other nodes, by what is known of the last handshake with them.
	Peers map[Handshake]int
}

// Handshake is how long ago WireGuard last shook hands with a peer. While packets flow it does every two minutes.
type Handshake string

// The handshakes: a session is good for three minutes.
const (
	HandshakeRecent Handshake = "recent"
	HandshakeOld    Handshake = "old"
	HandshakeNever  Handshake = "never"
)

// sessionLife is how long a handshake is good for: REJECT_AFTER_TIME of the protocol.
const sessionLife = 180 * time.Second

// Figures counts. What cannot be asked is left out.
func (v *Overlay) Figures(ctx context.Context) (Figures, error) {
	count := v.catalog.Count()
	f := Figures{
		VIPs: count.VIPs, Tasks: count.Tasks, TakenPorts: len(v.Status().GetTakenPorts()),
		Up:    v.Status().GetState() == warrenv1.OverlayState_OVERLAY_STATE_UP,
		Peers: map[Handshake]int{HandshakeRecent: 0, HandshakeOld: 0, HandshakeNever: 0},
	}
	peers, err := v.Peers(ctx)
	if errors.Is(err, ErrDown) {
		return f, nil
	}
	for _, p := range peers {
		f.Peers[handshake(p, time.Now())]++
	}
	return f, err
}

func handshake(p *warrenv1.OverlayPeer, now time.Time) Handshake {
	switch last := p.GetLastHandshake(); {
	case last == nil:
		return HandshakeNever
	case now.Sub(last.AsTime()) < sessionLife:
		return HandshakeRecent
	default:
		return HandshakeOld
	}
}
