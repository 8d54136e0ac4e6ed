package state

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// randomTransaction makes a transaction of a few operations, some of which cannot hold.
func randomTransaction(rt *rapid.T, s Snapshot) *Transaction {
	tx := New(then)
	id := func(kind string) string { return fmt.Sprintf("%s%d", kind, rapid.IntRange(0, 5).Draw(rt, kind)) }
	existing := slices.Collect(s.Objects())
	for range rapid.IntRange(0, 4).Draw(rt, "operations") {
		what := rapid.IntRange(0, 9).Draw(rt, "what")
		if what > 4 && len(existing) == 0 {
			what -= 5
		}
		switch what {
		case 0:
			tx.Create(aNode(id("n"), id("host")))
		case 1:
			tx.Create(aService(id("s"), id("name")))
		case 2:
			service := id("s")
			number := rapid.Uint64Range(1, 3).Draw(rt, "number")
			tx.Create(&warrenv1.Revision{Meta: &warrenv1.Meta{Id: RevisionID(service, number)}, ServiceId: service, Number: number})
		case 3, 4:
			tx.Create(aTask(id("t"), id("s"), rapid.Uint32Range(0, 3).Draw(rt, "slot"), rapid.SampledFrom([]string{"", id("n")}).Draw(rt, "node")))
		default:
			o := rapid.SampledFrom(existing).Draw(rt, "object")
			if rapid.IntRange(0, 4).Draw(rt, "stale") == 0 {
				o = proto.Clone(o).(Object)
				o.GetMeta().Version++
			}
			switch what {
			case 5:
				tx.Delete(o)
			case 6:
				tx.Check(o)
			default:
				Update(tx, o, func(o Object) {
					switch o := o.(type) {
					case *warrenv1.Node:
						o.Facts.Hostname = id("host")
					case *warrenv1.Task:
						o.NodeId, o.Slot = rapid.SampledFrom([]string{"", id("n")}).Draw(rt, "node"), rapid.Uint32Range(0, 3).Draw(rt, "slot")
					case *warrenv1.Service:
						o.Revision++
						if rapid.IntRange(0, 5).Draw(rt, "rename") == 0 {
							o.Spec.Name = id("name")
						}
					}
				})
			}
		}
	}
	return tx
}

func TestWhateverIsWrittenEveryReplicaEndsEqual(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		leader := newReplica()
		_, feed := leader.Watch()
		told := map[Key]Object{}
		for range rapid.IntRange(0, 30).Draw(rt, "entries") {
			before := leader.Snapshot()
			held := slices.Collect(before.Objects())
			var transactions []*Transaction
			for range rapid.IntRange(1, 3).Draw(rt, "transactions") {
				transactions = append(transactions, randomTransaction(rt, before))
			}
			results := leader.apply(transactions...)
			if !slices.Equal(held, slices.Collect(before.Objects())) {
				rt.Fatal("a snapshot has changed")
			}
			allRefused := true
			for _, why := range results {
				allRefused = allRefused && why != nil
			}
			after := leader.Snapshot()
			if allRefused && !slices.Equal(held, slices.Collect(after.Objects())) {
				rt.Fatal("refused transactions have changed something")
			}
			if why := unfaithful(after); why != "" {
				rt.Fatal(why)
			}
			for o := range after.Objects() {
				if v := o.GetMeta().GetVersion(); v == 0 || v > after.Index() {
					rt.Fatalf("the version of %v is not an index written so far", o)
				}
			}
			if rapid.Bool().Draw(rt, "take") {
				retell(rt, told, feed.Take())
			}
		}
		retell(rt, told, feed.Take())
		final := leader.Snapshot()
		if want := slices.Collect(final.Objects()); len(told) != len(want) {
			rt.Fatalf("the feed tells of %d objects, there are %d", len(told), len(want))
		}
		for o := range final.Objects() {
			if told[KeyOf(o)] != o {
				rt.Fatalf("the feed tells %v, there is %v", told[KeyOf(o)], o)
			}
		}

		// Another member that applies the same log, one that begins with a snapshot taken half-way, and
		// one that is given the final snapshot.
		follower, joiner, restored := newReplica(), newReplica(), newReplica()
		half := rapid.IntRange(0, len(leader.log)).Draw(rt, "half")
		for i, data := range leader.log {
			if i == half {
				load(rt, joiner, follower.Snapshot())
			}
			for _, r := range []*replica{follower, joiner} {
				if r == follower || i >= half {
					r.machine.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
				}
			}
		}
		if half == len(leader.log) {
			load(rt, joiner, follower.Snapshot())
		}
		load(rt, restored, final)
		for name, r := range map[string]*replica{"follower": follower, "joiner": joiner, "restored": restored} {
			if why := difference(final, r.Snapshot()); why != "" {
				rt.Fatalf("%s: %s", name, why)
			}
			if why := unfaithful(r.Snapshot()); why != "" {
				rt.Fatalf("%s: %s", name, why)
			}
		}
	})
}

// retell does to told what the feed tells, and checks that each change begins with what is there.
func retell(rt *rapid.T, told map[Key]Object, b Batch) {
	for _, c := range b.Changes {
		o := c.After
		if o == nil {
			o = c.Before
		}
		if told[KeyOf(o)] != c.Before {
			rt.Fatalf("the feed tells of a change from %v, but it told of %v", c.Before, told[KeyOf(o)])
		}
		if c.After == nil {
			delete(told, KeyOf(o))
		} else {
			told[KeyOf(o)] = c.After
		}
	}
}

func load(rt *rapid.T, r *replica, s Snapshot) {
	var b bytes.Buffer
	if err := s.Save(&b); err != nil {
		rt.Fatal(err)
	}
	if err := r.Load(&b); err != nil {
		rt.Fatal(err)
	}
}

// seeds are log entries to begin fuzzing with.
func seeds() [][]byte {
	r := newReplica()
	tx := New(then)
	tx.Create(aNode("n1", "a"))
	tx.Create(aService("s1", "web"))
	tx.Create(aTask("t1", "s1", 1, "n1"))
	tx.Create(&warrenv1.Cluster{Meta: &warrenv1.Meta{Id: "c"}})
	r.apply(tx)
	tx = New(then)
	tx.Check(r.Snapshot().Node("n1"))
	tx.Delete(r.Snapshot().Task("t1"))
	Update(tx, r.Snapshot().Service("s1"), func(s *warrenv1.Service) { s.Removing = true })
	r.apply(tx, New(then))
	return r.log
}

func FuzzApplyingAnyEntryKeepsReplicasEqual(f *testing.F) {
	entries := seeds()
	for _, data := range entries {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := newReplica(), newReplica()
		for _, r := range []*replica{a, b} {
			r.append(entries[0])
			r.append(slices.Clone(data))
			r.append(entries[1])
			r.append(slices.Clone(data))
		}
		if why := difference(a.Snapshot(), b.Snapshot()); why != "" {
			t.Error(why)
		}
		if why := unfaithful(a.Snapshot()); why != "" {
			t.Error(why)
		}
		restored := newReplica()
		if err := restored.Load(bytesOf(t, a.Snapshot())); err != nil {
			t.Fatal(err)
		}
		if why := difference(a.Snapshot(), restored.Snapshot()); why != "" {
			t.Error(why)
		}
	})
}

func FuzzLoadingAnythingIsRefusedOrWhole(f *testing.F) {
	r := newReplica()
	for _, data := range seeds() {
		r.append(data)
	}
	f.Add(bytesOf(f, r.Snapshot()).Bytes())
	f.Add(bytesOf(f, newReplica().Snapshot()).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newReplica()
		s.append(r.log[0])
		before := maps.Collect(byKey(s.Snapshot()))
		if err := s.Load(bytes.NewReader(data)); err != nil {
			if !maps.Equal(before, maps.Collect(byKey(s.Snapshot()))) {
				t.Error("a snapshot that was refused has changed the state")
			}
			return
		}
		if why := unfaithful(s.Snapshot()); why != "" {
			t.Error(why)
		}
	})
}

func byKey(s Snapshot) func(func(Key, Object) bool) {
	return func(yield func(Key, Object) bool) {
		for o := range s.Objects() {
			if !yield(KeyOf(o), o) {
				return
			}
		}
	}
}
