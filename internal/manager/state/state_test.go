package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var then = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// replica is a store and the log it has applied.
type replica struct {
	*Store
	machine *Machine
	log     [][]byte
}

func newReplica() *replica {
	s := NewStore()
	return &replica{Store: s, machine: NewMachine(s)}
}

// apply writes the transactions as one entry and returns their results.
func (r *replica) apply(transactions ...*Transaction) []error {
	var entry statev1.Entry
	for _, t := range transactions {
		entry.Transactions = append(entry.Transactions, t.Message())
	}
	data, err := proto.Marshal(&entry)
	if err != nil {
		panic(err)
	}
	return r.append(data)
}

func (r *replica) append(data []byte) []error {
	r.log = append(r.log, data)
	return r.machine.Apply(&raft.Log{Index: uint64(len(r.log)), Data: data}).([]error)
}

func (r *replica) must(t testing.TB, edit func(*Transaction)) {
	t.Helper()
	tx := New(then)
	edit(tx)
	if err := errors.Join(r.apply(tx)...); err != nil {
		t.Fatal(err)
	}
}

func ids[T Object](objects iter.Seq[T]) string {
	var all []string
	for o := range objects {
		all = append(all, o.GetMeta().GetId())
	}
	return strings.Join(all, " ")
}

// difference tells in what two snapshots differ, read through every index; empty where in nothing.
func difference(a, b Snapshot) string {
	if a.Index() != b.Index() {
		return fmt.Sprintf("indexes %d and %d", a.Index(), b.Index())
	}
	left, right := slices.Collect(a.Objects()), slices.Collect(b.Objects())
	if len(left) != len(right) || a.count() != len(left) || b.count() != len(right) {
		return fmt.Sprintf("%d (counted %d) and %d (counted %d) objects", len(left), a.count(), len(right), b.count())
	}
	for i := range left {
		if !proto.Equal(left[i], right[i]) {
			return fmt.Sprintf("%v and %v", left[i], right[i])
		}
	}
	views := func(s Snapshot) string {
		var out strings.Builder
		fmt.Fprintln(&out, ids(s.NodesInHostnameOrder()), "/", ids(s.ServicesFrom("")), "/", s.TaskCount(), s.ServiceCount())
		for n := range s.Nodes() {
			fmt.Fprintln(&out, ids(s.TasksByNode(n.GetMeta().GetId())), "/", ids(s.NodesByHostname(n.GetFacts().GetHostname())))
		}
		for o := range s.Services() {
			fmt.Fprintln(&out, ids(s.TasksByService(o.GetMeta().GetId())), "/", s.ServiceByName(o.GetSpec().GetName()).GetMeta().GetId(),
				"/", ids(s.Revisions(o.GetMeta().GetId())))
		}
		return out.String()
	}
	if va, vb := views(a), views(b); va != vb {
		return va + "\nand\n" + vb
	}
	return ""
}

// unfaithful tells where an index of s does not agree with the objects; empty where each does.
func unfaithful(s Snapshot) string {
	for n := range s.Nodes() {
		if h := n.GetFacts().GetHostname(); h != "" && !slices.Contains(slices.Collect(s.NodesByHostname(h)), n) {
			return "node not found by its hostname: " + n.String()
		}
	}
	for o := range s.Services() {
		if s.ServiceByName(o.GetSpec().GetName()) != o {
			return "service not found by its name: " + o.String()
		}
	}
	byNode, placed := 0, 0
	seen := map[string]bool{}
	for t := range s.Tasks() {
		if !slices.Contains(slices.Collect(s.TasksBySlot(t.GetServiceId(), t.GetSlot())), t) {
			return "task not found by its slot: " + t.String()
		}
		if id := t.GetNodeId(); id != "" {
			placed++
			if !seen[id] {
				seen[id] = true
				for on := range s.TasksByNode(id) {
					byNode++
					if on.GetNodeId() != id || s.Task(on.GetMeta().GetId()) != on {
						return "the index of nodes has a stranger: " + on.String()
					}
				}
			}
		}
	}
	if byNode != placed {
		return fmt.Sprintf("%d tasks are on nodes, the index has %d", placed, byNode)
	}
	return ""
}

func aNode(id, hostname string) *warrenv1.Node {
	return &warrenv1.Node{Meta: &warrenv1.Meta{Id: id}, Facts: &warrenv1.NodeFacts{Hostname: hostname}}
}

func aService(id, name string) *warrenv1.Service {
	return &warrenv1.Service{Meta: &warrenv1.Meta{Id: id}, Spec: &warrenv1.ServiceSpec{Name: name}}
}

func aTask(id, service string, slot uint32, node string) *warrenv1.Task {
	return &warrenv1.Task{Meta: &warrenv1.Meta{Id: id}, ServiceId: service, Slot: slot, NodeId: node}
}

func TestObjectsAreFoundByWhatTheyAreKnownBy(t *testing.T) {
	r := newReplica()
	r.must(t, func(tx *Transaction) {
		tx.Create(&warrenv1.Cluster{Meta: &warrenv1.Meta{Id: "c"}})
		tx.Create(aNode("n1", "web-1"))
		tx.Create(aNode("n2", "web-1"))
		tx.Create(aNode("n3", "web-10"))
		tx.Create(aNode("n4", ""))
		tx.Create(aService("s1", "web"))
		tx.Create(aService("s2", "web-2"))
		tx.Create(aService("s3", "api"))
		tx.Create(&warrenv1.Revision{Meta: &warrenv1.Meta{Id: RevisionID("s1", 1)}, ServiceId: "s1", Number: 1})
		tx.Create(&warrenv1.Revision{Meta: &warrenv1.Meta{Id: RevisionID("s1", 10)}, ServiceId: "s1", Number: 10})
		tx.Create(aTask("t1", "s1", 2, "n1"))
		tx.Create(aTask("t2", "s1", 1, "n1"))
		tx.Create(aTask("t3", "s1", 256, ""))
		tx.Create(aTask("u1", "s2", 1, "n2"))
	})
	s := r.Snapshot()
	if s.Cluster().GetMeta().GetId() != "c" {
		t.Error("the cluster is not found")
	}
	for what, got := range map[string][2]string{
		"nodes":               {ids(s.Nodes()), "n1 n2 n3 n4"},
		"nodes by hostname":   {ids(s.NodesByHostname("web-1")), "n1 n2"},
		"nodes of none":       {ids(s.NodesByHostname("")), ""},
		"nodes in order":      {ids(s.NodesInHostnameOrder()), "n1 n2 n3"},
		"nodes by prefix":     {ids(s.NodesByIDPrefix("n")), "n1 n2 n3 n4"},
		"services by name":    {ids(s.ServicesFrom("")), "s3 s1 s2"},
		"services from":       {ids(s.ServicesFrom("b")), "s1 s2"},
		"services from web":   {ids(s.ServicesFrom("web")), "s1 s2"},
		"services by prefix":  {ids(s.ServicesByIDPrefix("s3")), "s3"},
		"revisions":           {ids(s.Revisions("s1")), "s1.1 s1.10"},
		"tasks":               {ids(s.Tasks()), "t1 t2 t3 u1"},
		"tasks by prefix":     {ids(s.TasksByIDPrefix("t")), "t1 t2 t3"},
		"tasks by service":    {ids(s.TasksByService("s1")), "t2 t1 t3"},
		"tasks of no service": {ids(s.TasksByService("")), ""},
		"tasks by slot":       {ids(s.TasksBySlot("s1", 1)), "t2"},
		"tasks by node":       {ids(s.TasksByNode("n1")), "t1 t2"},
		"tasks of no node":    {ids(s.TasksByNode("")), ""},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %s, want %s", what, got[0], got[1])
		}
	}
	if s.Service("s") != nil || s.ServiceByName("we") != nil || s.Node("") != nil || s.Task("t") != nil || s.ServiceByName("") != nil {
		t.Error("part of a name finds an object")
	}
	if s.Revision("s1", 10).GetNumber() != 10 || s.Revision("s1", 100) != nil {
		t.Error("a revision is not found by its number")
	}
}

func TestAWriteBearsTheIndexOfItsEntryAndATimeOfItsProposer(t *testing.T) {
	r := newReplica()
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n1", "a")) })
	later := New(then.Add(time.Hour))
	Update(later, r.Snapshot().Node("n1"), func(n *warrenv1.Node) { n.Facts.Hostname = "b" })
	r.apply(later)
	m := r.Snapshot().Node("n1").GetMeta()
	if m.GetVersion() != 2 || !m.GetCreatedAt().AsTime().Equal(then) || !m.GetUpdatedAt().AsTime().Equal(then.Add(time.Hour)) {
		t.Errorf("meta is %v", m)
	}
	if r.Snapshot().Index() != 2 {
		t.Errorf("the snapshot's index is %d", r.Snapshot().Index())
	}
}

func TestATransactionThatCannotHoldIsRefusedWholeAndSaysWhy(t *testing.T) {
	stale := func(o Object) Object {
		o = proto.Clone(o).(Object)
		o.GetMeta().Version--
		return o
	}
	for name, c := range map[string]struct {
		edit func(Snapshot, *Transaction)
		want error
	}{
		"create what exists":        {func(_ Snapshot, tx *Transaction) { tx.Create(aNode("n1", "x")) }, ErrExists},
		"create a name that exists": {func(_ Snapshot, tx *Transaction) { tx.Create(aService("s9", "web")) }, ErrExists},
		"create a name twice": {func(_ Snapshot, tx *Transaction) {
			tx.Create(aService("s8", "new"))
			tx.Create(aService("s9", "new"))
		}, ErrExists},
		"update a stale version": {func(s Snapshot, tx *Transaction) { Update(tx, stale(s.Node("n1")), func(Object) {}) }, ErrConflict},
		"update what is gone":    {func(_ Snapshot, tx *Transaction) { Update(tx, aNode("n9", "x"), func(*warrenv1.Node) {}) }, ErrNotFound},
		"delete a stale version": {func(s Snapshot, tx *Transaction) { tx.Delete(stale(s.Task("t1"))) }, ErrConflict},
		"delete what is gone":    {func(_ Snapshot, tx *Transaction) { tx.Delete(aTask("t9", "s1", 1, "")) }, ErrNotFound},
		"check a stale version":  {func(s Snapshot, tx *Transaction) { tx.Check(stale(s.Service("s1"))) }, ErrConflict},
		"check what is gone":     {func(_ Snapshot, tx *Transaction) { tx.Check(aService("s9", "x")) }, ErrNotFound},
		"rename a service": {func(s Snapshot, tx *Transaction) {
			Update(tx, s.Service("s1"), func(s *warrenv1.Service) { s.Spec.Name = "other" })
		}, ErrMalformed},
		"touch an object twice": {func(s Snapshot, tx *Transaction) {
			tx.Check(s.Node("n1"))
			tx.Delete(s.Node("n1"))
		}, ErrMalformed},
		"a service without a name":   {func(_ Snapshot, tx *Transaction) { tx.Create(aService("s9", "")) }, ErrMalformed},
		"a task without a service":   {func(_ Snapshot, tx *Transaction) { tx.Create(aTask("t9", "", 1, "")) }, ErrMalformed},
		"an object without an id":    {func(_ Snapshot, tx *Transaction) { tx.Create(aNode("", "x")) }, ErrMalformed},
		"a zero in an id":            {func(_ Snapshot, tx *Transaction) { tx.Create(aNode("n1\x00", "x")) }, ErrMalformed},
		"a zero in a service's name": {func(_ Snapshot, tx *Transaction) { tx.Create(aService("s9", "web\x00")) }, ErrMalformed},
		"an empty operation":         {func(_ Snapshot, tx *Transaction) { tx.add(&statev1.Operation{}) }, ErrMalformed},
		"an unknown table": {func(_ Snapshot, tx *Transaction) {
			tx.add(&statev1.Operation{Action: &statev1.Operation_Delete{Delete: &statev1.Key{Table: 77, Id: "n1"}}})
		}, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplica()
			r.must(t, func(tx *Transaction) {
				tx.Create(aNode("n1", "a"))
				tx.Create(aService("s1", "web"))
				tx.Create(aTask("t1", "s1", 1, "n1"))
			})
			tx, after := New(then), New(then)
			tx.Create(aNode("n5", "first")) // what comes before the flaw must not stay
			c.edit(r.Snapshot(), tx)
			after.Create(aNode("n6", "second")) // and what stands beside it must not suffer
			before := r.Snapshot()
			_, feed := r.Watch()
			results := r.apply(tx, after)
			if len(results) != 2 || !errors.Is(results[0], c.want) || results[1] != nil {
				t.Fatalf("results are %v, want %v and nil", results, c.want)
			}
			if s := r.Snapshot(); s.Node("n5") != nil || s.Node("n6") == nil {
				t.Error("the refused transaction left something, or took the other one along")
			}
			if batch := feed.Take(); len(batch.Changes) != 1 {
				t.Errorf("the feed has %v", batch.Changes)
			}
			if before.Node("n6") != nil {
				t.Error("a snapshot has changed")
			}
			if why := unfaithful(r.Snapshot()); why != "" {
				t.Error(why)
			}
		})
	}
}

func TestAnEntryThatCannotBeReadIsRefused(t *testing.T) {
	r := newReplica()
	if results := r.append([]byte{0xff}); len(results) != 1 || !errors.Is(results[0], ErrMalformed) {
		t.Errorf("results are %v", results)
	}
}

func TestAnUpdateLeavesTheOriginalAlone(t *testing.T) {
	r := newReplica()
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n1", "a")) })
	original := r.Snapshot().Node("n1")
	r.must(t, func(tx *Transaction) {
		Update(tx, original, func(n *warrenv1.Node) { n.Facts.Hostname = "b" })
	})
	if original.GetFacts().GetHostname() != "a" || original.GetMeta().GetVersion() != 1 {
		t.Errorf("the object read before is now %v", original)
	}
	if ids(r.Snapshot().NodesByHostname("a")) != "" || ids(r.Snapshot().NodesByHostname("b")) != "n1" {
		t.Error("the node is found under its old name, or not under its new one")
	}
}

func TestAWatchMissesNothingBetweenItsSnapshotAndItsFeed(t *testing.T) {
	r := newReplica()
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n1", "a")) })
	s, feed := r.Watch()
	if ids(s.Nodes()) != "n1" {
		t.Fatal("the snapshot lacks what was written before")
	}
	if b := feed.Take(); len(b.Changes) != 0 || b.Snapshot.Index() != 1 {
		t.Errorf("something has happened already: %v", b)
	}
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n2", "b")) })
	r.must(t, func(tx *Transaction) { tx.Delete(s.Node("n1")) })
	b := feed.Take()
	if len(b.Changes) != 2 || b.Changes[0].Before != nil || b.Changes[0].After.GetMeta().GetId() != "n2" ||
		b.Changes[1].Before != Object(s.Node("n1")) || b.Changes[1].After != nil || ids(b.Snapshot.Nodes()) != "n2" {
		t.Errorf("the feed tells %v", b)
	}
}

func TestAFeedWaitsUntilSomethingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica()
		_, feed := r.Watch()
		got := make(chan Batch)
		go func() {
			b, err := feed.Next(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		synctest.Wait()
		select {
		case b := <-got:
			t.Fatalf("it did not wait: %v", b)
		default:
		}
		r.must(t, func(tx *Transaction) { tx.Create(aNode("n1", "a")) })
		if b := <-got; len(b.Changes) != 1 {
			t.Errorf("the feed tells %v", b)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := feed.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a wait that was called off returns %v", err)
		}
	})
}

func TestAFeedTellsThatTheStateWasReplaced(t *testing.T) {
	r, other := newReplica(), newReplica()
	other.must(t, func(tx *Transaction) { tx.Create(aNode("n7", "x")) })
	_, feed := r.Watch()
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n1", "a")) })
	if err := r.Load(bytesOf(t, other.Snapshot())); err != nil {
		t.Fatal(err)
	}
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n8", "y")) })
	b := feed.Take()
	if !b.Reset || len(b.Changes) != 1 || ids(b.Snapshot.Nodes()) != "n7 n8" {
		t.Errorf("the feed tells %v", b)
	}
	r.must(t, func(tx *Transaction) { tx.Create(aNode("n9", "z")) })
	if b := feed.Take(); b.Reset || len(b.Changes) != 1 {
		t.Errorf("then the feed tells %v", b)
	}
}

func bytesOf(t testing.TB, s Snapshot) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(&b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestASnapshotThatCannotBeReadLeavesTheStateAsItWas(t *testing.T) {
	r := newReplica()
	r.must(t, func(tx *Transaction) {
		tx.Create(aNode("n1", "a"))
		tx.Create(aTask("t1", "s1", 1, "n1"))
	})
	whole := bytesOf(t, r.Snapshot()).Bytes()
	before := r.Snapshot()
	for n := range whole {
		if err := r.Load(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(whole))
		}
	}
	if why := difference(before, r.Snapshot()); why != "" {
		t.Error(why)
	}
}
