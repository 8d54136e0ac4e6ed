package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxAttempts bounds how often a write looks again because the state has moved on. Each time somebody
// else's write has succeeded, so only an object written all the time without a pause comes near it.
const maxAttempts = 32

// writer writes for the handlers.
type writer struct {
	store    *state.Store
	proposer loop.Proposer
}

// do has build make a transaction of a snapshot and proposes it, again with a fresh snapshot whenever
// the state has moved on in between. An empty transaction is done already.
func (w writer) do(ctx context.Context, build func(state.Snapshot, *state.Transaction) error) error {
	for range maxAttempts {
		transaction := state.New(time.Now())
		if err := build(w.store.Snapshot(), transaction); err != nil {
			return err
		}
		if transaction.Len() == 0 {
			return nil
		}
		results, err := w.proposer.Propose(ctx, transaction)
		if err != nil {
			return err
		}
		if results == nil {
			return nil
		}
		if errors.Is(results[0], state.ErrMalformed) {
			return fmt.Errorf("write: %w", results[0])
		}
		// Refused because of what others wrote: build sees that now and says it, or gets along with it.
	}
	return problemf(connect.CodeAborted, "others write this all the time: try again later")
}

// unwritten checks that no user has written to a service since its writer has read it; 0 stands for any time. What the
// service has been given since, such as its address, does not count.
func unwritten(s *warrenv1.Service, read uint64) error {
	if read >= s.GetWrittenAt() && read <= s.GetMeta().GetVersion() && s.GetWrittenAt() != 0 {
		return nil
	}
	return unchanged("service "+s.GetSpec().GetName(), s, read)
}

// unwrittenNode checks that no user has written to a node since its writer has read it; 0 stands for any time. What the
// managers have noted of it since, which they do whenever its agent comes and goes, does not count.
func unwrittenNode(n *warrenv1.Node, read uint64) error {
	if read > n.GetWrittenOver() && read <= n.GetMeta().GetVersion() {
		return nil
	}
	return unchanged(nodeName(n), n, read)
}

// unchanged checks that o still has the version its writer has read; 0 stands for any.
func unchanged(what string, o state.Object, read uint64) error {
	if now := o.GetMeta().GetVersion(); read != 0 && read != now {
		return problemf(connect.CodeAborted, "%s has changed since version %d (now %d): read it again", what, read, now)
	}
	return nil
}
