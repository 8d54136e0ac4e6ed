package store

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reopen(t *testing.T, s *Store, dir string) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func TestTheManagersAddressesAreKeptUntilEverythingIsForgotten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if got := s.Managers(); len(got) != 0 {
		t.Errorf("a new store knows the managers %q", got)
	}
	if err := s.RecordManagers([]string{"a:1", "[::1]:2"}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, dir)
	if got := s.Managers(); !slices.Equal(got, []string{"a:1", "[::1]:2"}) {
		t.Errorf("read %q", got)
	}
	s.Assign(&warrenv1.Assignment{Task: &warrenv1.Task{Meta: &warrenv1.Meta{Id: "a"}}})
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, dir)
	defer s.Close()
	if tasks, err := s.Tasks(); err != nil || len(tasks) != 0 || len(s.Managers()) != 0 {
		t.Errorf("left: %v, %q, %v", tasks, s.Managers(), err)
	}
}

func TestAFolderFromBeforeCertificatesStillOpens(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.Assign(&warrenv1.Assignment{Task: &warrenv1.Task{Meta: &warrenv1.Meta{Id: "a"}}})
	err := s.db.Update(func(tx *bbolt.Tx) error {
		old, err := tx.CreateBucket(identityBucket)
		return errors.Join(err, old.Put([]byte("node"), []byte("abcdefghijklmnop")))
	})
	if err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, dir)
	defer s.Close()
	if tasks, err := s.Tasks(); err != nil || len(tasks) != 1 {
		t.Errorf("read %v, %v", tasks, err)
	}
}

func TestASecondAgentOnTheFolderIsToldSo(t *testing.T) {
	dir := t.TempDir()
	defer open(t, dir).Close()
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want %v", err, ErrInUse)
	}
}

func TestWhatIsRecordedIsReadBackAndWhatIsForgottenIsNot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "if", "missing")
	s := open(t, dir)
	a := &warrenv1.Assignment{Task: &warrenv1.Task{Meta: &warrenv1.Meta{Id: "a"}}, Spec: &warrenv1.TaskSpec{Force: 7}}
	b := &warrenv1.Assignment{Task: &warrenv1.Task{Meta: &warrenv1.Meta{Id: "b"}}}
	status := &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING, Attempt: 3}
	s.Assign(a, b)
	s.Advance("b", Progress{Status: status})
	s.Advance("a", Progress{Status: &warrenv1.TaskStatus{Attempt: 1}, Restarts: 1})
	if err := s.Forget("b").Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Note("a", Progress{Status: status, Restarts: 2}) // closing writes it
	s = reopen(t, s, dir)
	defer s.Close()
	tasks, err := s.Tasks()
	if err != nil || len(tasks) != 1 {
		t.Fatalf("read %v, %v", tasks, err)
	}
	got := tasks["a"]
	if !proto.Equal(got.Assignment, a) || !proto.Equal(got.Progress.Status, status) || got.Progress.Restarts != 2 {
		t.Errorf("read %v", got)
	}
}

func TestANoteIsWrittenWithoutCompany(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	if err := s.Note("a", Progress{Status: &warrenv1.TaskStatus{}}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestThingsOfTheNetworkAreRecordedTogether(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.RecordNetworkAll(map[string][]byte{"task/a": []byte("1"), "task/b": []byte("2"), "tasks": []byte("3")}); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordNetworkAll(map[string][]byte{"task/b": nil, "task/c": {}}); err != nil {
		t.Fatal(err)
	}
	under, err := s.NetworkUnder("task/")
	if err != nil || len(under) != 2 || string(under["a"]) != "1" || under["c"] == nil {
		t.Errorf("recorded %q, %v", under, err)
	}
	if err := s.RecordNetworkAll(map[string][]byte{"task/a": nil, "": []byte("nameless")}); err == nil {
		t.Error("something without a name was recorded")
	}
	if value, err := s.Network("task/a"); err != nil || value == nil {
		t.Errorf("half of it was: %q, %v", value, err)
	}
}
