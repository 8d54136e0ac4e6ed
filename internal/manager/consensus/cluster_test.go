package consensus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/consensus/consensustest"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// cluster is managers on a network in memory.
type cluster struct {
	t       *testing.T
	network *consensustest.Network
	members map[string]*member
	tune    func(*raft.Config)
}

// member is one manager's node, and what it keeps when it is stopped.
type member struct {
	*consensus.Node
	id    string
	store *state.Store
	disk  *consensustest.Disk
	stop  func()
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, network: consensustest.NewNetwork(), members: map[string]*member{}}
}

// begin starts managers of those ids, all of which vote.
func (c *cluster) begin(ids ...string) {
	for i, id := range ids {
		c.start(id)
		if i == 0 {
			if err := c.members[id].Bootstrap(""); err != nil {
				c.t.Fatal(err)
			}
			continue
		}
		if err := c.leader().AddVoter(c.t.Context(), id, id); err != nil {
			c.t.Fatal(err)
		}
	}
	c.await("all to know each other", func() bool {
		for _, m := range c.members {
			if len(m.Servers()) != len(ids) {
				return false
			}
		}
		return true
	})
	c.leader()
}

func (c *cluster) options(id string, disk *consensustest.Disk) consensus.Options {
	return consensus.Options{
		ID: id, Transport: c.network.Transport(id), Disk: disk.Open(), Logger: slog.New(slog.DiscardHandler), DataDir: c.t.TempDir(), Tune: c.tune,
	}
}

// start starts a manager with what it kept, if it was stopped before.
func (c *cluster) start(id string) *member {
	c.t.Helper()
	disk := consensustest.NewDisk()
	if before := c.members[id]; before != nil {
		disk = before.disk
	}
	m := &member{id: id, store: state.NewStore(), disk: disk}
	var err error
	if m.Node, err = consensus.Open(c.options(id, disk), state.NewMachine(m.store)); err != nil {
		c.t.Fatal(err)
	}
	stopped, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		for {
			select {
			case <-m.Leadership():
			case <-stopped:
				return
			}
		}
	}()
	m.stop = func() {
		m.stop = func() {}
		if err := m.Close(); err != nil {
			c.t.Error(err)
		}
		close(stopped)
		<-drained
	}
	c.members[id] = m
	return m
}

// close stops all managers.
func (c *cluster) close() {
	for _, m := range c.members {
		m.stop()
	}
}

// leader waits until one of the managers leads and knows all that was written, and returns it.
func (c *cluster) leader(but ...string) *member {
	c.t.Helper()
	var found *member
	c.await("a leader", func() bool {
		for id, m := range c.members {
			if slices.Contains(but, id) || !m.Leading() {
				continue
			}
			if m.VerifyLeader(context.Background()) == nil {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// follower returns one that does not lead.
func (c *cluster) follower() *member {
	leader := c.leader()
	for _, m := range c.members {
		if m != leader {
			return m
		}
	}
	return nil
}

// await waits, in virtual time, until something is so.
func (c *cluster) await(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited a minute for %s", what)
		}
	}
}

func creation(ids ...string) *state.Transaction {
	tx := state.New(time.Unix(0, 0))
	for _, id := range ids {
		tx.Create(&warrenv1.Node{Meta: &warrenv1.Meta{Id: id}, Facts: &warrenv1.NodeFacts{Hostname: id}})
	}
	return tx
}

func (m *member) create(id string) error {
	results, err := m.Propose(context.Background(), creation(id))
	return errors.Join(err, errors.Join(results...))
}

func (m *member) has(id string) bool { return m.store.Snapshot().Node(id) != nil }

// story runs a test in virtual time on a cluster of those ids.
func story(t *testing.T, ids []string, tell func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.close()
		c.begin(ids...)
		tell(t, c)
	})
}

var three = []string{"m1", "m2", "m3"}

func TestWhatTheLeaderWritesIsOnEveryManager(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader := c.leader()
		if err := leader.create("n1"); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.members {
			if err := m.AwaitApplied(t.Context(), leader.store.Snapshot().Index()); err != nil || !m.has("n1") {
				t.Errorf("%s does not have it: %v", m.id, err)
			}
			if id, addr := m.Leader(); id != leader.id || addr != leader.id {
				t.Errorf("%s takes %q at %q for the leader", m.id, id, addr)
			}
			if len(m.Servers()) != 3 {
				t.Errorf("%s knows %v", m.id, m.Servers())
			}
			if m != leader {
				if err := m.create("x"); !errors.Is(err, consensus.ErrNotLeader) {
					t.Errorf("%s took a write: %v", m.id, err)
				}
				if err := m.VerifyLeader(t.Context()); !errors.Is(err, consensus.ErrNotLeader) {
					t.Errorf("%s was confirmed: %v", m.id, err)
				}
			}
		}
	})
}

func TestWhenTheLeaderIsLostAnotherTakesOverWithAllThatWasWritten(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		first := c.leader()
		if err := first.create("n1"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		first.stop()
		second := c.leader(first.id)
		if err := second.create("n2"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the next write succeeded after %v", took)
		}
		if !second.has("n1") {
			t.Error("what was written is gone")
		}
		back := c.start(first.id)
		if err := back.AwaitApplied(t.Context(), second.store.Snapshot().Index()); err != nil || !back.has("n2") {
			t.Errorf("the manager that is back has not caught up: %v", err)
		}
	})
}

func TestADeposedLeaderWritesNothing(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		first := c.leader()
		c.network.Isolate(first.id)
		// It does not know yet that it is alone: it takes this up, and cannot tell what becomes of it.
		if err := first.create("lost"); !errors.Is(err, consensus.ErrUnknownOutcome) {
			t.Errorf("the leader that was cut off wrote: %v", err)
		}
		if err := first.create("late"); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("the deposed leader wrote: %v", err)
		}
		second := c.leader(first.id)
		if err := second.create("n1"); err != nil {
			t.Fatal(err)
		}
		c.network.MendAll()
		if err := first.AwaitApplied(t.Context(), second.store.Snapshot().Index()); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.members {
			if m.has("lost") || m.has("late") {
				t.Errorf("%s has what the deposed leader was to write", m.id)
			}
		}
		if !first.has("n1") {
			t.Error("the deposed leader did not catch up")
		}
	})
}

func TestALeaderThatIsHeardByNobodyStepsDown(t *testing.T) {
	for _, way := range []string{"to the followers", "from the followers"} {
		t.Run(way, func(t *testing.T) {
			story(t, three, func(t *testing.T, c *cluster) {
				first := c.leader()
				for id := range c.members {
					if way == "to the followers" {
						c.network.Cut(first.id, id)
					} else {
						c.network.Cut(id, first.id)
					}
				}
				began := time.Now()
				second := c.leader(first.id)
				if err := second.create("n1"); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("the next write succeeded after %v", took)
				}
			})
		})
	}
}

// Of two managers each is needed: right after the second has been given its vote, on a busy machine, there is nobody else to answer.
func TestALeaderOfTwoKeepsTheLeadWhileTheOtherIsSlow(t *testing.T) {
	story(t, []string{"m1", "m2"}, func(t *testing.T, c *cluster) {
		leader, other := c.leader(), c.follower()
		term := leader.Figures().Term
		c.network.Delay(func(from, _ string) time.Duration {
			if from == other.id {
				return 300 * time.Millisecond
			}
			return 0
		})
		time.Sleep(10 * time.Second)
		if now := leader.Figures(); !now.Leading || now.Term != term {
			t.Errorf("in term %d it leads: %v; it did in term %d", now.Term, now.Leading, term)
		}
	})
}

func TestAReadTakesAnAnswerFromMostManagersThatIsNotFromBeforeIt(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader := c.leader()
		c.network.Delay(func(string, string) time.Duration { return 10 * time.Millisecond })
		for range 100 {
			began := time.Now()
			if err := leader.VerifyLeader(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < 20*time.Millisecond || took > 60*time.Millisecond {
				t.Errorf("confirmed after %v, when there and back takes 20 ms", took)
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
}

func TestNoReadIsConfirmedOnceAnotherManagerHasWritten(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		believed := 0
		for i := range 100 {
			// The leader hears the others late, and then they no longer hear it.
			first, written := c.leader(), fmt.Sprintf("n%d", i)
			c.network.Delay(func(_, to string) time.Duration {
				if to == first.id {
					return 150*time.Millisecond + rand.N(80*time.Millisecond)
				}
				return rand.N(time.Millisecond)
			})
			time.Sleep(2 * time.Second)
			for id := range c.members {
				c.network.Cut(first.id, id)
			}
			if err := c.leader(first.id).create(written); err != nil {
				t.Fatal(err)
			}
			if first.Leading() {
				believed++
			}
			if err := first.VerifyLeader(t.Context()); err == nil && !first.has(written) {
				t.Error("a read from before the write was confirmed after it")
			}
			c.network.Delay(func(string, string) time.Duration { return 0 })
			c.network.MendAll()
			c.await("the first to catch up", func() bool { return first.has(written) })
		}
		t.Logf("the first still believed to lead %d times", believed)
		if believed == 0 {
			t.Error("nothing was tried")
		}
	})
}

func TestManyReadersShareAConfirmation(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader := c.leader()
		results := make(chan error, 1000)
		for range cap(results) {
			go func() { results <- leader.VerifyLeader(context.Background()) }()
		}
		for range cap(results) {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAFollowerThatWasAwayForLongCatchesUpBySnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.tune = func(r *raft.Config) {
			r.SnapshotThreshold, r.SnapshotInterval, r.TrailingLogs = 4096, 100*time.Millisecond, 1024
		}
		defer c.close()
		c.begin(three...)
		leader, away := c.leader(), c.follower()
		away.stop()
		const writes = 20_000
		for i := range writes {
			if err := leader.create(fmt.Sprintf("n%d", i)); err != nil {
				t.Fatal(err)
			}
			if i%2000 == 0 {
				time.Sleep(time.Second)
			}
		}
		if first, err := leader.disk.FirstIndex(); err != nil || first < writes/2 {
			t.Fatalf("the log begins at %d: %v", first, err)
		}
		back := c.start(away.id)
		index := leader.store.Snapshot().Index()
		if err := back.AwaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if !back.has("n0") || !back.has(fmt.Sprintf("n%d", writes-1)) || back.AppliedIndex() < index {
			t.Errorf("it came as far as %d of %d", back.AppliedIndex(), index)
		}
	})
}

func TestAManagerJoinsWithoutASayAndThenGetsOne(t *testing.T) {
	story(t, []string{"m1"}, func(t *testing.T, c *cluster) {
		leader := c.leader()
		if err := leader.create("n1"); err != nil {
			t.Fatal(err)
		}
		changed := leader.Changed()
		m2 := c.start("m2")
		waiting := m2.Changed()
		index, err := leader.AddNonvoter(t.Context(), "m2", "m2")
		if err != nil {
			t.Fatal(err)
		}
		<-changed
		<-waiting
		if err := m2.AwaitApplied(t.Context(), index); err != nil || !m2.has("n1") {
			t.Fatalf("it has not caught up: %v", err)
		}
		want := []consensus.Server{{ID: "m1", Addr: "m1", Voter: true}, {ID: "m2", Addr: "m2"}}
		if !slices.Equal(leader.Servers(), want) {
			t.Errorf("members are %v", leader.Servers())
		}
		if m2.Leading() || m2.TransferLeadership(t.Context()) == nil {
			t.Error("it leads")
		}
		if err := leader.TransferLeadership(t.Context()); !errors.Is(err, consensus.ErrAlone) {
			t.Errorf("the lead was given to one without a say: %v", err)
		}
		if err := leader.AddVoter(t.Context(), "m2", "m2"); err != nil {
			t.Fatal(err)
		}
		if servers := leader.Servers(); !servers[1].Voter {
			t.Errorf("members are %v", servers)
		}
		c.await("the newcomer to know", func() bool { s := m2.Servers(); return len(s) == 2 && s[1].Voter })
	})
}

func TestThereAreSevenManagersAtMost(t *testing.T) {
	story(t, []string{"m1", "m2", "m3", "m4", "m5", "m6", "m7"}, func(t *testing.T, c *cluster) {
		leader := c.leader()
		if err := leader.AddVoter(t.Context(), "m8", "m8"); !errors.Is(err, consensus.ErrTooMany) {
			t.Errorf("an eighth came in: %v", err)
		}
		if _, err := leader.AddNonvoter(t.Context(), "m8", "m8"); !errors.Is(err, consensus.ErrTooMany) {
			t.Errorf("an eighth came in: %v", err)
		}
		if leader.id == "m7" {
			if err := leader.TransferLeadership(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.members["m7"].stop()
		if err := c.leader("m7").AddVoter(t.Context(), "m7", "elsewhere"); err != nil {
			t.Errorf("the seventh could not change its address: %v", err)
		}
		c.members["m6"].stop()
		leader = c.leader("m6", "m7")
		if err := leader.create("n1"); err != nil {
			t.Errorf("two of seven are lost: %v", err)
		}
	})
}

func TestMembershipChangesWaitForEachOther(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader := c.leader()
		results := make(chan error, 4)
		for i := range 2 {
			id := fmt.Sprintf("m%d", 4+i)
			c.start(id)
			go func() { results <- leader.AddVoter(context.Background(), id, id) }()
		}
		for id := range c.members {
			if slices.Contains(three, id) && id != leader.id {
				go func() { results <- leader.Remove(context.Background(), id) }()
			}
		}
		for range cap(results) {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if len(leader.Servers()) != 3 {
			t.Errorf("members are %v", leader.Servers())
		}
	})
}

func TestALeaderThatIsTakenOutStepsDownAndTheOthersGoOn(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		first := c.leader()
		changed := first.Changed()
		if err := first.Remove(t.Context(), first.id); err != nil {
			t.Fatal(err)
		}
		<-changed
		second := c.leader(first.id)
		if err := second.create("n1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if first.Leading() || !second.Leading() || len(second.Servers()) != 2 {
			t.Errorf("first leads: %v, second: %v, members %v", first.Leading(), second.Leading(), second.Servers())
		}
		if err := second.Remove(t.Context(), "nobody"); err != nil {
			t.Errorf("removing nobody: %v", err)
		}
	})
}

func TestTheLeadIsGivenToAManagerThatCanBeReached(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader, away := c.leader(), c.follower()
		away.stop()
		c.await("the leader to notice", func() bool { return !leader.Reachable()[away.id] })
		if err := leader.TransferLeadership(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if next := c.leader(); next == leader || next == away || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%s leads after %v, before it was %s", next.id, time.Since(began), leader.id)
		}
		if err := leader.TransferLeadership(t.Context()); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("it gave away a lead that it does not have: %v", err)
		}
	})
}

func TestTheLeaderKnowsWhoCanBeReached(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader, away := c.leader(), c.follower()
		if r := leader.Reachable(); len(r) != 3 || !r["m1"] || !r["m2"] || !r["m3"] {
			t.Errorf("reachable are %v", r)
		}
		if r := away.Reachable(); r != nil {
			t.Errorf("a follower says that it reaches %v", r)
		}
		c.network.Isolate(away.id)
		c.await("one to be away", func() bool { return !leader.Reachable()[away.id] })
		c.network.MendAll()
		c.await("it to be back", func() bool { return leader.Reachable()[away.id] })
		if !leader.Leading() {
			t.Error("the lead was lost to a manager that came back")
		}
	})
}

func TestOneSurvivorGoesOnAlone(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		if err := c.leader().create("n1"); err != nil {
			t.Fatal(err)
		}
		survivor := c.follower()
		c.await("the survivor to have what the others have", func() bool { return survivor.has("n1") })
		for _, m := range c.members {
			m.stop()
		}
		if err := consensus.Recover(c.options(survivor.id, survivor.disk), survivor.id); err != nil {
			t.Fatal(err)
		}
		alone := c.start(survivor.id)
		if alone != c.leader() || !slices.Equal(alone.Servers(), []consensus.Server{{ID: alone.id, Addr: alone.id, Voter: true}}) {
			t.Errorf("members are %v", alone.Servers())
		}
		if err := alone.create("n2"); err != nil || !alone.has("n1") {
			t.Errorf("it goes on with n1: %v, %v", alone.has("n1"), err)
		}
		if err := consensus.Recover(c.options("m9", consensustest.NewDisk()), "m9"); err == nil || !strings.Contains(err.Error(), "belongs to no cluster") {
			t.Errorf("a manager of no cluster was recovered: %v", err)
		}
	})
}

func TestARestoredStateIsOnEveryManager(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader := c.leader()
		if err := leader.create("kept"); err != nil {
			t.Fatal(err)
		}
		var backup bytes.Buffer
		saved := leader.store.Snapshot()
		if err := saved.Save(&backup); err != nil {
			t.Fatal(err)
		}
		if err := leader.create("gone"); err != nil {
			t.Fatal(err)
		}
		damaged := backup.Bytes()[:backup.Len()-3]
		if err := leader.RestoreState(t.Context(), bytes.NewReader(damaged)); err == nil || !leader.has("gone") {
			t.Errorf("a damaged backup was restored: %v", err)
		}
		if err := c.follower().RestoreState(t.Context(), bytes.NewReader(backup.Bytes())); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("a follower restored: %v", err)
		}
		if err := leader.RestoreState(t.Context(), bytes.NewReader(backup.Bytes())); err != nil {
			t.Fatal(err)
		}
		if err := leader.create("new"); err != nil {
			t.Fatal(err)
		}
		if v := leader.store.Snapshot().Node("new").GetMeta().GetVersion(); v <= saved.Index()+1 {
			t.Errorf("a new object has version %d, the state had come to %d", v, saved.Index())
		}
		for _, m := range c.members {
			if err := m.AwaitApplied(t.Context(), leader.store.Snapshot().Index()); err != nil {
				t.Fatal(err)
			}
			if !m.has("kept") || !m.has("new") || m.has("gone") {
				t.Errorf("%s has kept: %v, new: %v, gone: %v", m.id, m.has("kept"), m.has("new"), m.has("gone"))
			}
		}
	})
}

func TestALeaderWhoseDiskIsFullHandsOver(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		for i := range 30 {
			first := c.leader()
			first.disk.Fill(true)
			began := time.Now()
			if err := first.create("lost"); !errors.Is(err, consensus.ErrUnknownOutcome) || !strings.Contains(err.Error(), "no space left") {
				t.Errorf("it wrote: %v", err)
			}
			second := c.leader(first.id)
			if err := second.create(fmt.Sprintf("n%d", i)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the next write succeeded after %v", took)
			}
			time.Sleep(20 * time.Second) // which it spends without room, and the others undisturbed
			if !second.Leading() {
				t.Error("the lead was lost again")
			}
			first.disk.Fill(false)
			began = time.Now()
			if err := first.AwaitApplied(t.Context(), second.store.Snapshot().Index()); err != nil || first.has("lost") {
				t.Errorf("it did not catch up: %v", err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it caught up after %v", took)
			}
		}
	})
}

func TestASoleManagerWhoseDiskWasFullGoesOn(t *testing.T) {
	story(t, []string{"m1"}, func(t *testing.T, c *cluster) {
		only := c.leader()
		only.disk.Fill(true)
		if err := only.create("lost"); !errors.Is(err, consensus.ErrUnknownOutcome) {
			t.Errorf("it wrote: %v", err)
		}
		time.Sleep(10 * time.Second)
		only.disk.Fill(false)
		began := time.Now()
		if err := c.leader().create("n1"); err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("it wrote after %v: %v", time.Since(began), err)
		}
	})
}

func TestWritesThatMostManagersCannotStoreFailAndLaterOnesAreRefusedAtOnce(t *testing.T) {
	story(t, three, func(t *testing.T, c *cluster) {
		leader := c.leader()
		for _, m := range c.members {
			if m != leader {
				m.disk.Fill(true)
			}
		}
		if err := leader.create("n1"); !errors.Is(err, consensus.ErrUnknownOutcome) || !errors.Is(err, consensus.ErrStalled) {
			t.Errorf("it wrote: %v", err)
		}
		began := time.Now()
		if err := leader.create("n2"); errors.Is(err, consensus.ErrUnknownOutcome) || !errors.Is(err, consensus.ErrStalled) || time.Since(began) > time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		for _, m := range c.members {
			m.disk.Fill(false)
		}
		c.await("the write to be done after all", func() bool { return leader.has("n1") })
		if err := leader.create("n3"); err != nil {
			t.Error(err)
		}
	})
}
