package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/pki"
)

const (
	// probeTimeout bounds how long a refusal is held up by finding out who answers.
	probeTimeout = 500 * time.Millisecond
	// probeFresh is how long what was found out is good.
	probeFresh = 2 * time.Second
)

// peerState is whether another manager answers.
type peerState struct {
	Peer
	err error // why not
}

// probes finds out which managers answer, for those who ask why there is no leader. They share what
// it finds.
type probes struct {
	mu    sync.Mutex
	at    time.Time
	found []peerState
}

func (p *probes) look(ctx context.Context, peers []Peer, credentials *pki.Holder) []peerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < probeFresh {
		return p.found
	}
	// The one who happens to ask may go away; what is found is for the next as well.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	found := make([]peerState, len(peers))
	var probing sync.WaitGroup
	for i, peer := range peers {
		probing.Go(func() { found[i] = peerState{peer, probe(ctx, peer, credentials)} })
	}
	probing.Wait()
	p.found, p.at = found, time.Now()
	return found
}

// probe tells whether a manager answers at its address.
func probe(ctx context.Context, peer Peer, credentials *pki.Holder) error {
	dialer := tls.Dialer{Config: managerConfig(credentials, peer.ID)}
	conn, err := dialer.DialContext(ctx, "tcp", peer.Addr)
	switch failed := new(net.OpError); {
	case err == nil:
		return conn.Close()
	case ctx.Err() != nil:
		return fmt.Errorf("no answer within %s", probeTimeout)
	case errors.As(err, &failed):
		return failed.Err
	}
	return err
}
