package format

import (
	"cmp"
	"iter"
	"time"

	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Inputs are the tables the loop watches.
var Inputs = []statev1.Table{statev1.Table_TABLE_CLUSTER, statev1.Table_TABLE_MEMBER}

// Outputs are what the loop alone writes.
var Outputs = []string{"cluster.format"}

// key is the loop's only one: the cluster.
const key = "cluster"

// New returns the loop of a manager that knows formats up to one.
func New(known uint32) loop.Loop {
	return &loop.Keyed{
		Loop: "format",
		All:  func(state.Snapshot) iter.Seq[string] { return only },
		Affected: func(_ state.Snapshot, c state.Change) iter.Seq[string] {
			switch cmp.Or(c.After, c.Before).(type) {
			case *warrenv1.Cluster, *statev1.Member:
				return only
			}
			return none
		},
		DecideOne: func(s state.Snapshot, _ string, now time.Time) (*state.Transaction, time.Time) {
			return decide(s, known, now), time.Time{}
		},
	}
}

func none(func(string) bool) {}

func only(yield func(string) bool) { yield(key) }

// decide raises the format to the newest that all managers know. Whoever takes part has told what it knows before it
// was let in, so that the members of the state are all that count.
func decide(s state.Snapshot, known uint32, now time.Time) *state.Transaction {
	t := state.New(now)
	cluster := s.Cluster()
	if cluster == nil {
		return t
	}
	for m := range s.Members() {
		known = min(known, state.FormatOf(m))
	}
	if known > state.FormatOf(cluster) {
		state.Update(t, cluster, func(c *warrenv1.Cluster) { c.Format = known })
		for m := range s.Members() {
			t.Check(m) // none came in, or came back older, meanwhile
		}
	}
	return t
}
