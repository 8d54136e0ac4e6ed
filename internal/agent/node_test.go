package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/agent/membership"
	"github.com/cuemby/warren/internal/agent/session"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeTasks are tasks that end when they are told to.
type fakeTasks struct {
	mu      sync.Mutex
	active  int
	trouble error
}

func (f *fakeTasks) Active() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active
}

func (f *fakeTasks) Clear(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble == nil {
		f.active = 0
	}
	return f.trouble
}

// addresses is a membership.Record that keeps nothing.
type addresses struct{}

func (addresses) Managers() []string            { return nil }
func (addresses) RecordManagers([]string) error { return nil }

// rig is a node whose session is the test's.
type rig struct {
	*node
	tasks    *fakeTasks
	attended chan error // why each session ended
	held     chan pki.Identity
	forgot   int
}

// newRig starts a node in dir, which is a member where there are credentials.
func newRig(t *testing.T, dir string) *rig {
	t.Helper()
	member, err := membership.Open(membership.Options{Dir: dir, Record: addresses{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{tasks: &fakeTasks{}, attended: make(chan error, 8), held: make(chan pki.Identity, 8)}
	r.node = &node{
		ctx: ctx, membership: member, tasks: r.tasks, logger: slog.New(slog.DiscardHandler),
		disconnect: func(context.Context) error { return nil },
		forget:     func() error { r.forgot++; return nil },
		hold: func(ctx context.Context, mine *pki.Credentials, standing func(string, error)) {
			standing("m:1", nil)
			r.held <- mine.Identity()
			<-ctx.Done()
			standing("", nil)
			r.attended <- context.Cause(ctx)
		},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

// joined is a data folder with credentials.
func joined(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.NewCA("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	who := pki.Identity{Cluster: "c1", Role: warrenv1.Role_ROLE_AGENT, Name: "n1"}
	certificate, err := ca.Issue(&key.PublicKey, who, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mine, err := pki.New(key, certificate, [][]byte{ca.Certificate.Raw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Save(dir + "/identity.pem"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func next[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("waiting for %s: it did not come", what)
		panic("unreachable")
	}
}

func TestAMemberAttendsAndSaysHowItStands(t *testing.T) {
	r := newRig(t, joined(t))
	if who := next(t, r.held, "session"); who.Name != "n1" {
		t.Errorf("attends as %v", who)
	}
	r.tasks.active = 2
	d := r.Describe()
	if d.GetNodeId() != "n1" || d.GetClusterId() != "c1" || d.GetManager() != "m:1" || d.GetTasks() != 2 || d.GetProblem() != "" || d.GetCertificateExpiresAt() == nil {
		t.Errorf("described as %v", d)
	}
	r.stand("", errors.New("removed"))
	if d := r.Describe(); d.GetProblem() != "removed" || d.GetManager() != "" {
		t.Errorf("described as %v", d)
	}
}

func TestANodeThatRunsTasksLeavesOnlyWhenItIsForcedTo(t *testing.T) {
	r := newRig(t, joined(t))
	next(t, r.held, "session")
	r.tasks.active = 3
	err := r.Leave(t.Context(), false)
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "3 tasks run on this node") {
		t.Errorf("got %v", err)
	}
	if err := r.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if why := next(t, r.attended, "end of the session"); !errors.Is(why, session.ErrLeave) {
		t.Errorf("the session ended because of %v", why)
	}
	if d := r.Describe(); d.GetNodeId() != "" || d.GetTasks() != 0 || d.GetManager() != "" || r.forgot != 1 {
		t.Errorf("left: %v, forgot %d times", d, r.forgot)
	}
	if err := r.Leave(t.Context(), true); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "not a member") {
		t.Errorf("leaving what it is not in: %v", err)
	}
}

func TestANodeWhoseTasksCannotBeStoppedStaysAMember(t *testing.T) {
	r := newRig(t, joined(t))
	next(t, r.held, "session")
	r.tasks.trouble = errors.New("containerd is down")
	if err := r.Leave(t.Context(), true); err == nil || !strings.Contains(err.Error(), "containerd is down") {
		t.Errorf("got %v", err)
	}
	if who := next(t, r.held, "session again"); who.Name != "n1" || r.forgot != 0 {
		t.Errorf("attends as %v, forgot %d times", who, r.forgot)
	}
}

func TestAMachineThatIsNoMemberSaysWhy(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.cannotJoin(errors.New("the join token has expired"))
	if d := r.Describe(); d.GetProblem() != "the join token has expired" || d.GetNodeId() != "" {
		t.Errorf("described as %v", d)
	}
	_, _, err := r.Join(t.Context(), "x", []string{"a:1"})
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("joined with %v", err)
	}
}
