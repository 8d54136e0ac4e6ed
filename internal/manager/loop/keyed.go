package loop

import (
	"iter"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
)

// Keyed is a control loop about one object at a time. Set its functions and Run it.
type Keyed struct {
	// Loop is the loop's name.
	Loop string
	// All lists the keys of everything there is to decide on.
	All func(state.Snapshot) iter.Seq[string]
	// Affected lists the keys on which a change has bearing. A key may come more than once.
	Affected func(state.Snapshot, state.Change) iter.Seq[string]
	// DecideOne decides about one key: it returns what to write, nil or empty for nothing, and
	// when to look again even if nothing changes, zero for never. It must be a pure function.
	DecideOne func(s state.Snapshot, key string, now time.Time) (*state.Transaction, time.Time)

	dirty map[string]struct{}
	order []string // the dirty keys, in the order in which they became so
	wakes map[string]time.Time
}

var _ Loop = (*Keyed)(nil)

// Name implements Loop.
func (k *Keyed) Name() string { return k.Loop }

// Reset implements Loop.
func (k *Keyed) Reset(s state.Snapshot) {
	k.dirty, k.order, k.wakes = map[string]struct{}{}, nil, map[string]time.Time{}
	for key := range k.All(s) {
		k.mark(key)
	}
}

// Observe implements Loop.
func (k *Keyed) Observe(s state.Snapshot, changes []state.Change) {
	for _, c := range changes {
		for key := range k.Affected(s, c) {
			k.mark(key)
		}
	}
}

// Refused implements Loop.
func (k *Keyed) Refused(p Proposal) { k.mark(p.Key) }

// Decide implements Loop: it decides about the keys that changes have touched or whose time has come.
func (k *Keyed) Decide(s state.Snapshot, now time.Time) Decision {
	for key, wake := range k.wakes {
		if !wake.After(now) {
			k.mark(key)
		}
	}
	var d Decision
	for _, key := range k.order {
		delete(k.wakes, key)
		transaction, wake := k.DecideOne(s, key, now)
		if transaction != nil && transaction.Len() > 0 {
			d.Proposals = append(d.Proposals, Proposal{Key: key, Transaction: transaction})
		}
		if !wake.IsZero() {
			k.wakes[key] = wake
		}
	}
	clear(k.dirty)
	k.order = k.order[:0]
	for _, wake := range k.wakes {
		if d.Wake.IsZero() || wake.Before(d.Wake) {
			d.Wake = wake
		}
	}
	return d
}

func (k *Keyed) mark(key string) {
	if _, already := k.dirty[key]; already {
		return
	}
	k.dirty[key] = struct{}{}
	k.order = append(k.order, key)
}
