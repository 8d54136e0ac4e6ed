package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/backup"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func member(id string) *statev1.Member {
	return &statev1.Member{Meta: &warrenv1.Meta{Id: id}, Hostname: id, Addr: id + ":7420"}
}

func removed(name string, until time.Time) *statev1.RemovedMember {
	return &statev1.RemovedMember{Name: name, Until: timestamppb.New(until)}
}

func inState(s warrenv1.NodeState) func(*warrenv1.Node) {
	return func(n *warrenv1.Node) { n.Status.State = s }
}

// cluster is a store with a cluster in it.
func cluster(t testing.TB, objects ...state.Object) (*state.Store, authority.Key) {
	t.Helper()
	k := authority.NewKey()
	kept, err := authority.Found(statetest.ClusterID, k, now)
	if err != nil {
		t.Fatal(err)
	}
	return statetest.New(t, append(objects, statetest.Cluster(), kept)...), k
}

func take(t testing.TB, s state.Snapshot, k authority.Key) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := backup.Take(&b, s, k, now); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restored loads what is to be restored.
func restored(t testing.TB, r *backup.Restoration) state.Snapshot {
	t.Helper()
	from, err := r.State()
	if err != nil {
		t.Fatal(err)
	}
	store := state.NewStore()
	if err := store.Load(from); err != nil {
		t.Fatal(err)
	}
	return store.Snapshot()
}

func receive(t testing.TB, file []byte, self string) *backup.Restoration {
	t.Helper()
	r, err := backup.Receive(t.TempDir(), bytes.NewReader(file), self, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestOtherManagersAreRememberedForAsLongAsTheirCertificatesAreGood(t *testing.T) {
	for name, c := range map[string]struct {
		life, longer time.Duration // 0: not said
		want         time.Duration
	}{
		"as the cluster says":             {24 * time.Hour, 0, 24 * time.Hour},
		"as ever":                         {0, 0, authority.DefaultLife},
		"where they were good for longer": {24 * time.Hour, 90 * 24 * time.Hour, 90 * 24 * time.Hour},
	} {
		store, k := cluster(t, member("m1"), member("self"))
		kept, spec := proto.CloneOf(store.Snapshot().Authority()), statetest.Cluster()
		if c.life != 0 {
			spec.Spec.CertificateLife = durationpb.New(c.life)
		}
		if c.longer != 0 {
			kept.LongerLivedUntil = timestamppb.New(now.Add(c.longer))
		}
		statetest.Put(t, store, kept, spec)
		after := restored(t, receive(t, take(t, store.Snapshot(), k), "self")).Authority().GetRemoved()
		if len(after) != 1 || after[0].GetUntil().AsTime().Before(now.Add(c.want)) {
			t.Errorf("%s: %v, want until %v", name, after, now.Add(c.want))
		}
	}
}

func TestWhatIsRestoredIsWhatWasBackedUpWithOneManager(t *testing.T) {
	web := statetest.Replicated("web", 2)
	store, k := cluster(t,
		statetest.Node("n1"), statetest.Node("n2", inState(warrenv1.NodeState_NODE_STATE_UNKNOWN)), statetest.Node("n3", inState(warrenv1.NodeState_NODE_STATE_DOWN)),
		web, statetest.Revision(web), statetest.Task("t1", "web", 1, "n1"), member("m1"), member("m2"), member("self"),
		&warrenv1.User{Meta: &warrenv1.Meta{Id: "jo"}})
	statetest.Put(t, store, func() *statev1.Authority {
		kept := proto.CloneOf(store.Snapshot().Authority())
		kept.Removed = []*statev1.RemovedMember{removed("n9", now.Add(time.Hour)), removed("self", now.Add(time.Hour)), removed("old", now.Add(-time.Hour))}
		return kept
	}())
	before := store.Snapshot()
	r := receive(t, take(t, before, k), "self")
	if !r.Key.Equal(k) || r.Header.GetClusterId() != statetest.ClusterID || r.Header.GetIndex() != before.Index() || !r.Header.GetCreatedAt().AsTime().Equal(now) {
		t.Errorf("header %v", r.Header)
	}
	after := restored(t, r)
	if after.Index() != before.Index() {
		t.Errorf("index %d, was %d", after.Index(), before.Index())
	}
	for m := range after.Members() {
		t.Errorf("manager %s is left", m.GetMeta().GetId())
	}
	var names []string
	for _, m := range after.Authority().GetRemoved() {
		names = append(names, m.GetName())
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "m1 m2 n9" {
		t.Errorf("removed are %q", got)
	}
	for _, id := range []string{"n1", "n2"} {
		if status := after.Node(id).GetStatus(); status.GetState() != warrenv1.NodeState_NODE_STATE_DISCONNECTED || !status.GetSince().AsTime().Equal(now) {
			t.Errorf("%s: %v", id, status)
		}
	}
	if !proto.Equal(after.Node("n3"), before.Node("n3")) {
		t.Errorf("a node that was down is %v", after.Node("n3"))
	}
	for o := range before.Objects() {
		switch o.(type) {
		case *statev1.Member, *statev1.Authority, *warrenv1.Node:
			continue
		}
		if got := statetest.Lookup(after, state.KeyOf(o)); !proto.Equal(got, o) {
			t.Errorf("%v became %v", o, got)
		}
	}
	if again := restored(t, r); again.Index() != after.Index() {
		t.Error("it cannot be read twice")
	}
}

// TestABackupUnderWritesIsTheStateAtItsIndex takes backups while others write and compares each with the
// state that was there at its index.
func TestABackupUnderWritesIsTheStateAtItsIndex(t *testing.T) {
	store, k := cluster(t)
	proposer := statetest.NewProposer(store)
	at := map[uint64]state.Snapshot{}
	proposer.OnCommit(func(_, after state.Snapshot) { at[after.Index()] = after })
	written := make(chan struct{})
	files := make(chan []byte, 32)
	go func() {
		defer close(files)
		for range cap(files) {
			files <- take(t, store.Snapshot(), k)
		}
	}()
	go func() {
		defer close(written)
		for n := range 2000 {
			tx := state.New(now)
			tx.Create(statetest.Replicated(fmt.Sprintf("web-%d", n), 1))
			if _, err := proposer.Propose(t.Context(), tx); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var all [][]byte
	for file := range files {
		all = append(all, file)
	}
	<-written
	indexes := map[uint64]bool{}
	for _, file := range all {
		r := receive(t, file, "self")
		indexes[r.Header.GetIndex()] = true
		want, ok := at[r.Header.GetIndex()]
		if !ok {
			continue // before the first write
		}
		got := restored(t, r)
		if got.ServiceCount() != want.ServiceCount() {
			t.Fatalf("at %d there were %d services, restored are %d", r.Header.GetIndex(), want.ServiceCount(), got.ServiceCount())
		}
		for s := range want.Services() {
			if !proto.Equal(s, got.Service(s.GetMeta().GetId())) {
				t.Fatalf("%v became %v", s, got.Service(s.GetMeta().GetId()))
			}
		}
	}
	t.Logf("%d backups at %d moments", len(all), len(indexes))
}

func TestSavedAndRestoredAreEqual(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var objects []state.Object
		for i := range rapid.IntRange(0, 20).Draw(rt, "objects") {
			name := fmt.Sprintf("x%d", i)
			objects = append(objects, rapid.SampledFrom([]state.Object{
				statetest.Node(name, inState(warrenv1.NodeState_NODE_STATE_DOWN)), statetest.Replicated(name, 1), statetest.Task(name, "s", 1, ""),
				&warrenv1.User{Meta: &warrenv1.Meta{Id: name}}, member(name),
			}).Draw(rt, "object"))
		}
		store, k := cluster(t, objects...)
		before := store.Snapshot()
		after := restored(t, receive(t, take(t, before, k), "self"))
		count := 0
		for o := range before.Objects() {
			switch o.(type) {
			case *statev1.Member, *statev1.Authority:
				continue
			}
			count++
			if got := statetest.Lookup(after, state.KeyOf(o)); !proto.Equal(got, o) {
				rt.Fatalf("%v became %v", o, got)
			}
		}
		for range after.Objects() {
			count--
		}
		if count != -1 { // the authority
			rt.Fatalf("%d objects too few", count+1)
		}
	})
}

func TestWhatDoesNotFitTogetherIsRefusedAndLeavesNothing(t *testing.T) {
	store, k := cluster(t, statetest.Node("n1"))
	good := take(t, store.Snapshot(), k)
	write := func(edit func(*statev1.BackupHeader), s backupfile.State) []byte {
		h := &statev1.BackupHeader{ClusterId: statetest.ClusterID, ClusterKey: k.Secret()}
		edit(h)
		var b bytes.Buffer
		if err := backupfile.Write(&b, h, s); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	none := func(*statev1.BackupHeader) {}
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"cut short":          {good[:len(good)-1], "cut short"},
		"altered":            {append(bytes.Clone(good[:100]), append([]byte{good[100] ^ 1}, good[101:]...)...), "altered"},
		"nothing":            {nil, "cut short"},
		"another key":        {write(func(h *statev1.BackupHeader) { h.ClusterKey = authority.NewKey().Secret() }, store.Snapshot()), "does not fit"},
		"no key":             {write(func(h *statev1.BackupHeader) { h.ClusterKey = nil }, store.Snapshot()), "0 bytes"},
		"another cluster":    {write(func(h *statev1.BackupHeader) { h.ClusterId = "other" }, store.Snapshot()), "header names"},
		"without a cluster":  {write(none, state.NewStore().Snapshot()), "header names"},
		"without trust":      {write(none, statetest.New(t, statetest.Cluster()).Snapshot()), "no certificate authority"},
		"not a cluster's id": {write(func(h *statev1.BackupHeader) { h.ClusterId = "" }, state.NewStore().Snapshot()), "header names"},
	} {
		dir := t.TempDir()
		r, err := backup.Receive(dir, bytes.NewReader(c.file), "self", now)
		if r != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left are %v, %v", name, left, err)
		}
	}
	if err := backup.Take(io.Discard, state.NewStore().Snapshot(), k, now); err == nil {
		t.Error("there was nothing to back up")
	}
}

func TestWhatIsReceivedLiesInNoFolderWhenItIsReady(t *testing.T) {
	store, k := cluster(t)
	dir := filepath.Join(t.TempDir(), "data")
	r, err := backup.Receive(dir, bytes.NewReader(take(t, store.Snapshot(), k)), "self", now)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := backup.Receive(filepath.Join(dir, "\x00"), bytes.NewReader(nil), "self", now); err == nil {
		t.Error("a folder that cannot be")
	}
	if _, err := backup.Receive(dir, failing{}, "self", now); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the sender went away: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }
