package rotation

import (
	"iter"
	"time"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_AUTHORITY, statev1.Table_TABLE_NODE, statev1.Table_TABLE_MEMBER}

// Outputs are what the loop writes. All of it is written by authority.Rotate as well, where no replacement
// is under way.
var Outputs = []string{"authority.roots", "authority.bridge", "authority.rotation_started_at"}

// only is the loop's one key: there is one authority.
const only = "authority"

// New returns the loop.
func New() loop.Loop {
	return &loop.Keyed{
		Loop: "rotation",
		All:  func(state.Snapshot) iter.Seq[string] { return one },
		Affected: func(s state.Snapshot, c state.Change) iter.Seq[string] {
			if matters(s, c) {
				return one
			}
			return none
		},
		DecideOne: func(s state.Snapshot, _ string, now time.Time) (*state.Transaction, time.Time) {
			return decide(s, now), time.Time{}
		},
	}
}

func one(yield func(string) bool) { yield(only) }
func none(func(string) bool)      {}

// matters tells whether a change has bearing on a replacement that is under way. Nodes change all the
// time for other reasons.
func matters(s state.Snapshot, c state.Change) bool {
	if !authority.Rotating(s.Authority()) {
		return false
	}
	if c.Before == nil || c.After == nil {
		return member(c.Before) || member(c.After)
	}
	switch after := c.After.(type) {
	case *statev1.Authority:
		return true
	case *statev1.Member:
		return after.GetIssuer() != c.Before.(*statev1.Member).GetIssuer()
	case *warrenv1.Node:
		return after.GetStatus().GetIssuer() != c.Before.(*warrenv1.Node).GetStatus().GetIssuer()
	}
	return false
}

func member(o state.Object) bool {
	switch o.(type) {
	case *statev1.Authority, *statev1.Member, *warrenv1.Node:
		return true
	}
	return false
}

// decide ends the replacement where nobody holds it up.
func decide(s state.Snapshot, now time.Time) *state.Transaction {
	kept := s.Authority()
	if !authority.Rotating(kept) || !announced(s) {
		return nil
	}
	for range authority.Pending(s) {
		return nil
	}
	transaction := state.New(now)
	state.Update(transaction, kept, func(after *statev1.Authority) {
		after.Roots, after.Bridge, after.RotationStartedAt = after.GetRoots()[:1], nil, nil
	})
	return transaction
}

// announced tells whether any manager has told of itself. There is at least the one that decides this:
// before it has, nothing is known of who has renewed.
func announced(s state.Snapshot) bool {
	for range s.Members() {
		return true
	}
	return false
}
