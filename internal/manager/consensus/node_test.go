package consensus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// member is a node with its store.
type member struct {
	*Node
	store *state.Store
}

func open(t testing.TB, id, dir string, transport raft.Transport, tune func(*raft.Config)) *member {
	t.Helper()
	m, err := openMember(id, dir, transport, tune)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func openMember(id, dir string, transport raft.Transport, tune func(*raft.Config)) (*member, error) {
	store := state.NewStore()
	n, err := Open(memberOptions(id, dir, transport, tune), state.NewMachine(store))
	return &member{n, store}, err
}

func memberOptions(id, dir string, transport raft.Transport, tune func(*raft.Config)) Options {
	if transport == nil {
		_, transport = raft.NewInmemTransport(raft.ServerAddress(id))
	}
	return Options{ID: id, DataDir: dir, Transport: transport, Logger: slog.New(slog.DiscardHandler), Tune: tune}
}

// takeLead makes a sole member the leader and waits for everything written before.
func (m *member) takeLead(ctx context.Context) error {
	if err := m.Bootstrap(""); err != nil && !errors.Is(err, ErrInitialized) {
		return err
	}
	for leads := range m.Leadership() {
		if leads {
			break
		}
	}
	return m.Barrier(ctx)
}

func alone(t testing.TB, dir string, tune func(*raft.Config)) *member {
	t.Helper()
	return aloneOn(t, memberOptions("m1", dir, nil, tune))
}

func aloneOn(t testing.TB, o Options) *member {
	t.Helper()
	store := state.NewStore()
	n, err := Open(o, state.NewMachine(store))
	if err != nil {
		t.Fatal(err)
	}
	m := &member{n, store}
	if err := m.takeLead(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *member) close(t testing.TB) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func creation(id string) *state.Transaction {
	tx := state.New(time.Unix(0, 0))
	tx.Create(&warrenv1.Node{Meta: &warrenv1.Meta{Id: id}, Facts: &warrenv1.NodeFacts{Hostname: id}})
	return tx
}

func (m *member) create(ctx context.Context, ids ...string) error {
	var transactions []*state.Transaction
	for _, id := range ids {
		transactions = append(transactions, creation(id))
	}
	results, err := m.Propose(ctx, transactions...)
	return errors.Join(err, errors.Join(results...))
}

func (m *member) count() int {
	n := 0
	for range m.store.Snapshot().Nodes() {
		n++
	}
	return n
}

func TestWhatWasWrittenIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	m := alone(t, dir, nil)
	if yes, err := m.Initialized(); err != nil || !yes {
		t.Errorf("initialized: %v, %v", yes, err)
	}
	if err := m.create(t.Context(), "n1", "n2"); err != nil {
		t.Fatal(err)
	}
	if leader, addr := m.Leader(); !slices.Equal(m.Servers(), []Server{{"m1", "m1", true}}) || leader != "m1" || addr != "m1" || !m.Leading() {
		t.Errorf("members %v, leader %q at %q", m.Servers(), leader, addr)
	}
	m.close(t)
	m = alone(t, dir, nil)
	defer m.close(t)
	if m.store.Snapshot().Node("n2") == nil || m.count() != 2 {
		t.Errorf("%d objects are left of 2", m.count())
	}
	if err := m.Bootstrap(""); !errors.Is(err, ErrInitialized) {
		t.Errorf("a second bootstrap: %v", err)
	}
}

func TestASoleMemberLeadsWithoutWaitingForAnElectionTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for range 2 { // as a new cluster, and after a restart
			begin := time.Now()
			m := alone(t, dir, nil)
			if took := time.Since(begin); took > 50*time.Millisecond {
				t.Errorf("it led after %v", took)
			}
			m.close(t)
		}
	})
}

func TestANewNodeWaitsToBeBootstrapped(t *testing.T) {
	m := open(t, "m1", t.TempDir(), nil, nil)
	defer m.close(t)
	if yes, err := m.Initialized(); err != nil || yes {
		t.Errorf("initialized: %v, %v", yes, err)
	}
	if err := m.create(t.Context(), "n1"); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a write: %v", err)
	}
}

func TestASecondManagerOnTheSameFolderIsTurnedAway(t *testing.T) {
	dir := t.TempDir()
	m := open(t, "m1", dir, nil, nil)
	defer m.close(t)
	if _, err := openMember("m1", dir, nil, nil); err == nil || !strings.Contains(err.Error(), "another warren-manager") {
		t.Errorf("it was opened: %v", err)
	}
}

func TestEachProposerLearnsItsOwnOutcome(t *testing.T) {
	m := alone(t, t.TempDir(), nil)
	defer m.close(t)
	results, err := m.Propose(t.Context(), creation("a"), creation("a"), creation("b"))
	if err != nil || len(results) != 3 || results[0] != nil || !errors.Is(results[1], state.ErrExists) || results[2] != nil {
		t.Errorf("results are %v, %v", results, err)
	}
	if results, err := m.Propose(t.Context(), creation("c")); results != nil || err != nil {
		t.Errorf("results are %v, %v", results, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Propose(ctx, creation("d")); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a proposal called off: %v", err)
	}
}

func TestManyProposersShareEntriesAndAllAreServed(t *testing.T) {
	m := alone(t, t.TempDir(), nil)
	defer m.close(t)
	before := m.store.Snapshot().Index()
	const proposers, each = 64, 20
	var all sync.WaitGroup
	for p := range proposers {
		all.Go(func() {
			for i := range each {
				if err := m.create(t.Context(), fmt.Sprintf("n%d.%d", p, i)); err != nil {
					t.Error(err)
					return
				}
				if m.store.Snapshot().Node(fmt.Sprintf("n%d.%d", p, i)) == nil {
					t.Error("a write was acknowledged before it could be read")
				}
			}
		})
	}
	all.Wait()
	if m.count() != proposers*each {
		t.Errorf("%d objects are there of %d", m.count(), proposers*each)
	}
	if entries := m.store.Snapshot().Index() - before; entries > proposers*each/2 {
		t.Errorf("%d entries for %d writes: they were not gathered", entries, proposers*each)
	}
}

func TestAClosedNodeRefusesAndLeavesNobodyWaiting(t *testing.T) {
	m := alone(t, t.TempDir(), nil)
	var all sync.WaitGroup
	begun := make(chan struct{}, 1)
	for p := range 32 {
		all.Go(func() {
			for i := 0; ; i++ {
				err := m.create(context.Background(), fmt.Sprintf("n%d.%d", p, i))
				select {
				case begun <- struct{}{}:
				default:
				}
				if err != nil {
					if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNotLeader) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	<-begun
	m.close(t)
	all.Wait()
}

func TestARestartBeginsWithTheNewestSnapshot(t *testing.T) {
	dir := t.TempDir()
	often := func(c *raft.Config) {
		c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 20, 5, 10*time.Millisecond
	}
	m := alone(t, dir, often)
	_, feed := m.store.Watch()
	for i := range 100 {
		if err := m.create(t.Context(), fmt.Sprintf("n%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		t.Fatal(err)
	}
	if b := feed.Take(); b.Reset || len(b.Changes) != 100 {
		t.Errorf("taking snapshots disturbed the feed: %v, %d changes", b.Reset, len(b.Changes))
	}
	m.close(t)
	kept, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
	if err != nil || len(kept) == 0 || len(kept) > snapshotsRetained {
		t.Fatalf("snapshots on disk: %v, %v", kept, err)
	}
	m = open(t, "m1", dir, nil, often)
	defer m.close(t)
	if m.count() != 100 {
		t.Errorf("%d objects of 100 were restored before anything was applied", m.count())
	}
	if first, err := m.disk.Log.FirstIndex(); err != nil || first < 50 {
		t.Errorf("the log still begins at %d: %v", first, err)
	}
	if err := m.takeLead(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.create(t.Context(), "n100"); err != nil || m.count() != 101 {
		t.Errorf("%d objects, %v", m.count(), err)
	}
}

// childDir is set, to a data folder, in the environment of a copy of the test that is there to be killed.
const childDir = "WARREN_CONSENSUS_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := writeUntilKilled(dir, os.Getenv("WARREN_CONSENSUS_TEST_ROUND")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeUntilKilled writes from many goroutines and prints what was acknowledged.
func writeUntilKilled(dir, round string) error {
	m, err := openMember("m1", dir, nil, func(c *raft.Config) {
		c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = 64, 16, 20*time.Millisecond
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := m.takeLead(ctx); err != nil {
		return err
	}
	failed := make(chan error)
	for writer := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("r%s.w%d.%d", round, writer, i)
				if err := m.create(ctx, id); err != nil {
					failed <- err
					return
				}
				fmt.Println(id)
			}
		}()
	}
	return <-failed
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 4 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("WARREN_CONSENSUS_TEST_ROUND=%d", round))
		var stderr strings.Builder
		child.Stderr = &stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // a line cut short was not said
			}
			acknowledged[strings.TrimSpace(line)] = true
			if n == 100*(round+1) {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || stderr.Len() > 0 {
			t.Fatalf("the child was to be killed: %v %s", err, stderr.String())
		}
	}
	m := alone(t, dir, nil)
	defer m.close(t)
	for id := range acknowledged {
		if m.store.Snapshot().Node(id) == nil {
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
	if len(acknowledged) < 1000 {
		t.Errorf("only %d writes were acknowledged", len(acknowledged))
	}
}
