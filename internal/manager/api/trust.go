package api

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// trustGap is the least time between two messages of a watch: each lists all who have not renewed yet,
	// and of a thousand members each makes a change.
	trustGap = 100 * time.Millisecond
	// reachGap is how often a watch looks again at which managers are reachable, while that matters. It
	// is not in the state, and nothing tells when it changes.
	reachGap = 2 * time.Second
)

// trustService is about the keys of the cluster as a whole.
type trustService struct {
	warrenv1connect.UnimplementedTrustServiceHandler
	store      *state.Store
	authority  *authority.Authority
	membership Membership
}

var _ warrenv1connect.TrustServiceHandler = (*trustService)(nil)

// RotateCA implements warrenv1connect.TrustServiceHandler.
func (h *trustService) RotateCA(ctx context.Context, _ *connect.Request[warrenv1.RotateCARequest]) (*connect.Response[warrenv1.RotateCAResponse], error) {
	if err := h.authority.Rotate(ctx); err != nil {
		return nil, err
	}
	trust, err := h.observe(h.store.Snapshot())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.RotateCAResponse{Trust: trust}), nil
}

// WatchTrust implements warrenv1connect.TrustServiceHandler.
func (h *trustService) WatchTrust(ctx context.Context, _ *connect.Request[warrenv1.WatchTrustRequest], stream *connect.ServerStream[warrenv1.WatchTrustResponse]) error {
	var sent *warrenv1.Trust
	for {
		// A feed is held only while waiting: one held while a slow caller reads would keep every commit
		// since in memory.
		s, feed := h.store.Watch()
		now, err := h.observe(s)
		for ; err == nil && proto.Equal(now, sent); now, err = h.observe(s) {
			if s, err = nextTrust(ctx, feed, now); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&warrenv1.WatchTrustResponse{Trust: now}); err != nil {
			return err
		}
		sent = now
		if err := pause(ctx, trustGap); err != nil {
			return err
		}
	}
}

// nextTrust waits until how the CAs stand may have changed from last.
func nextTrust(ctx context.Context, feed *state.Feed, last *warrenv1.Trust) (state.Snapshot, error) {
	var again <-chan time.Time
	if slices.ContainsFunc(last.GetPending(), func(p *warrenv1.PendingMember) bool { return p.GetRole() == warrenv1.Role_ROLE_MANAGER }) {
		timer := time.NewTimer(reachGap)
		defer timer.Stop()
		again = timer.C
	}
	for {
		select {
		case <-feed.Ready():
			if batch := feed.Take(); batch.Reset || slices.ContainsFunc(batch.Changes, bearsOnTrust) {
				return batch.Snapshot, nil
			}
		case <-again:
			return feed.Take().Snapshot, nil
		case <-ctx.Done():
			return state.Snapshot{}, ctx.Err()
		}
	}
}

// bearsOnTrust tells whether a change may be one of how the CAs stand.
func bearsOnTrust(c state.Change) bool {
	for _, o := range []state.Object{c.Before, c.After} {
		switch o.(type) {
		case *statev1.Authority, *statev1.Member, *warrenv1.Node:
			return true
		}
	}
	return false
}

// observe tells how the CAs stand.
func (h *trustService) observe(s state.Snapshot) (*warrenv1.Trust, error) {
	trust := authority.Trust(s)
	if len(trust.GetPending()) == 0 {
		return trust, nil
	}
	managers, err := h.membership.Managers()
	if err != nil {
		return nil, err
	}
	reachable := func(m *warrenv1.Manager) bool { return m.GetReachable() || m.GetLeader() }
	for _, p := range trust.GetPending() {
		if p.GetRole() == warrenv1.Role_ROLE_MANAGER {
			p.Down = !slices.ContainsFunc(managers, func(m *warrenv1.Manager) bool { return m.GetId() == p.GetId() && reachable(m) })
		}
	}
	return trust, nil
}

// pause waits, or fails with the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
