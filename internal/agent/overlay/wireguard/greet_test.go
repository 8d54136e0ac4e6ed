package wireguard

import (
	"context"
	"sync"
	"testing"
	"time"
)

// attend greets again whoever has not answered, until ctx ends.
func attend(ctx context.Context, t *testing.T, d *Device) {
	for ctx.Err() == nil {
		at, some := d.Unanswered()
		if !some {
			return
		}
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return
		}
		if err := d.GreetAgain(t.Context()); err != nil {
			t.Error(err)
			return
		}
	}
}

func TestTwoWhoReplaceTheirKeysAtOnceFindEachOtherAtOnce(t *testing.T) {
	// Less than WireGuard waits before it begins another handshake.
	const soon = 3 * time.Second
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		for range 20 {
			p.a.private, p.b.private = newKey(t), newKey(t)
			ctx, cancel := context.WithCancel(t.Context())
			var both sync.WaitGroup
			for _, side := range []struct {
				*host
				device *Device
				port   int
				peer   Peer
			}{{p.a, p.aDevice, p.aPort, p.b.as(p.bPort)}, {p.b, p.bDevice, p.bPort, p.a.as(p.aPort)}} {
				both.Go(func() {
					if err := side.device.Apply(t.Context(), Config{PrivateKey: side.private, ListenPort: side.port, Peers: []Peer{side.peer}}); err != nil {
						t.Error(err)
					}
					attend(ctx, t, side.device)
				})
			}
			if took := p.a.reach(p.b); took > soon {
				t.Errorf("they found each other after %v", took)
			}
			cancel()
			both.Wait()
		}
	})
}

func TestAGreetingThatNobodyUnderstandsIsRepeated(t *testing.T) {
	const soon = 3 * time.Second
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		p.b.private = newKey(t)
		p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort)) // b has not taken its new key yet
		if at, some := p.aDevice.Unanswered(); !some || time.Until(at) > soon {
			t.Errorf("an answer is waited for until %v, %v", at, some)
		}
		p.b.apply(p.bDevice, p.bPort)
		if err := p.bDevice.Apply(t.Context(), Config{PrivateKey: p.b.private, ListenPort: p.bPort, Peers: []Peer{silently(p.a.as(p.aPort))}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		attend(ctx, t, p.aDevice)
		if _, some := p.aDevice.Unanswered(); some {
			t.Errorf("still no answer after %v", soon)
		}
		if peerOf(t, p.aDevice, p.b).LastHandshake.IsZero() {
			t.Error("no handshake, and nobody waits for one")
		}
		if got, want := peerOf(t, p.aDevice, p.b).Endpoint, p.b.as(p.bPort).Endpoint; got != want {
			t.Errorf("it is looked for at %v instead of %v", got, want)
		}
		have, _, err := p.aDevice.read(t.Context())
		if err != nil || len(have.Peers) != 1 || have.Peers[0].Keepalive != 0 {
			t.Errorf("left of the greetings: %+v, %v", have.Peers, err)
		}
	})
}

// silently is a peer that is not known where to greet.
func silently(p Peer) Peer {
	p.Endpoint = Peer{}.Endpoint
	return p
}

func TestWhoNeverAnswersIsLeftToWireGuardInTheEnd(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind) {
		p := newPair(t, kind)
		stranger := p.b.as(p.bPort + 1)
		stranger.PublicKey, stranger.AllowedIPs = newKey(t).PublicKey(), nil
		p.a.apply(p.aDevice, p.aPort, p.b.as(p.bPort), stranger)
		before := peerOf(t, p.aDevice, p.b)
		ctx, cancel := context.WithTimeout(t.Context(), atMost)
		defer cancel()
		attend(ctx, t, p.aDevice)
		if _, some := p.aDevice.Unanswered(); some {
			t.Error("it is greeted for ever")
		}
		// A peer that is removed and added anew counts anew. That both have begun a handshake at first, and the second is
		// through only now, is none of ours.
		if after := peerOf(t, p.aDevice, p.b); after.ReceivedBytes < before.ReceivedBytes || after.LastHandshake.Before(before.LastHandshake) {
			t.Errorf("another peer's session was disturbed: %+v, before %+v", after, before)
		}
	})
}
