package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// cluster is a manager in memory behind several doors.
type cluster struct {
	*fakemanager.Manager
	t      *testing.T
	socket string
	doors  []*fakemanager.Door
}

func newCluster(t *testing.T, doors int) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") //nolint:usetesting // short: it becomes a socket's path
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "m.sock")
	m, err := fakemanager.Start(socket)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Manager: m, t: t, socket: socket}
	t.Cleanup(func() {
		m.Close()
		for _, d := range c.doors {
			d.Close()
		}
		os.RemoveAll(dir)
	})
	for range doors {
		d, err := m.Open("")
		if err != nil {
			t.Fatal(err)
		}
		c.doors = append(c.doors, d)
	}
	local, err := client.New(client.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := local.Cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
		t.Fatal(err)
	}
	return c
}

// client returns a client of all doors, and of addresses before them.
func (c *cluster) client(before ...string) *client.Client {
	c.t.Helper()
	return c.clientWith(nil, before...)
}

func (c *cluster) clientWith(onStale func(time.Time), before ...string) *client.Client {
	c.t.Helper()
	mine, err := c.Credentials(warrenv1.Role_ROLE_ADMIN, "ann")
	if err != nil {
		c.t.Fatal(err)
	}
	addrs := slices.Clone(before)
	for _, d := range c.doors {
		addrs = append(addrs, d.Addr)
	}
	made, err := client.New(client.Options{Addrs: addrs, Credentials: mine, OnStale: onStale})
	if err != nil {
		c.t.Fatal(err)
	}
	return made
}

func list(ctx context.Context, c *client.Client) error {
	_, err := c.ListServices(ctx)
	return err
}

func create(ctx context.Context, c *client.Client, name string) error {
	_, err := c.Services.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
		Name: name, Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 1}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "nginx"}},
	}}))
	return err
}

// refuse answers as a manager does that has not carried a call out.
func refuse(words string, header ...string) func(w http.ResponseWriter, r *http.Request) bool {
	errs := connect.NewErrorWriter()
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Warren-Not-Executed", "true")
		for _, h := range header {
			w.Header().Set(h, time.Now().UTC().Format(time.RFC3339))
		}
		_ = errs.Write(w, r, connect.NewError(connect.CodeUnavailable, errors.New(words)))
		return true
	}
}

func TestTheManagerThatAnsweredIsAskedAgain(t *testing.T) {
	c := newCluster(t, 3)
	to := c.client()
	for range 5 {
		if err := list(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	c.doors[0].Close()
	for n := range 5 {
		if err := create(t.Context(), to, fmt.Sprint("s", n)); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, d := c.doors[0].Calls(), c.doors[1].Calls(), c.doors[2].Calls(); a != 5 || b+d != 5 || b*d != 0 {
		t.Errorf("the managers were asked %d, %d and %d times", a, b, d)
	}
}

func TestAMachineThatIsOffHoldsNobodyUp(t *testing.T) {
	c := newCluster(t, 1)
	// TEST-NET-1: routed to nowhere, or refused at once.
	to := c.client("192.0.2.1:7420", "192.0.2.2:7420")
	began := time.Now()
	if err := list(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestACallThatWasNotCarriedOutGoesToTheNextManager(t *testing.T) {
	c := newCluster(t, 3)
	to := c.client()
	c.doors[0].Block(refuse("this manager does not lead"))
	c.doors[1].Block(refuse("this manager does not lead"))
	if err := create(t.Context(), to, "web"); err != nil {
		t.Fatal(err)
	}
	stream, err := to.Services.WatchService(t.Context(), connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: "web"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Error(stream.Err())
	}
}

func TestAnElectionIsWaitedFor(t *testing.T) {
	for _, doors := range []int{1, 2} {
		c := newCluster(t, doors)
		to := c.client()
		var asked atomic.Int64
		for _, d := range c.doors {
			no := refuse("an election is under way")
			d.Block(func(w http.ResponseWriter, r *http.Request) bool { return asked.Add(1) < 7 && no(w, r) })
		}
		if err := create(t.Context(), to, "web"); err != nil {
			t.Errorf("%d managers: %v", doors, err)
		}
	}
}

func TestWhatEachManagerAnsweredIsSaidWhenNoneCould(t *testing.T) {
	c := newCluster(t, 3)
	c.doors[0].Block(refuse("nobody leads, seen from m1", "Warren-Leaderless-Since"))
	c.doors[1].Block(refuse("nobody leads, seen from m2", "Warren-Leaderless-Since"))
	c.doors[2].Close()
	to := c.client()
	began := time.Now()
	err := create(t.Context(), to, "web")
	if connect.CodeOf(err) != connect.CodeUnavailable || client.NotReached(err) {
		t.Errorf("got %v", err)
	}
	for _, part := range []string{c.doors[0].Addr + ": nobody leads, seen from m1", c.doors[1].Addr + ": nobody leads, seen from m2", c.doors[2].Addr, "connection refused"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	// That there is no quorum no waiting will mend.
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestManagersThatWereNeverThereAreNotWaitedFor(t *testing.T) {
	c := newCluster(t, 2)
	for _, d := range c.doors {
		d.Close()
	}
	began := time.Now()
	if err := list(t.Context(), c.client()); connect.CodeOf(err) != connect.CodeUnavailable || !client.NotReached(err) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestManagersThatRestartAreWaitedFor(t *testing.T) {
	c := newCluster(t, 1)
	to := c.client()
	if err := list(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	c.doors[0].Close()
	done := make(chan error, 1)
	go func() { done <- create(t.Context(), to, "web") }()
	select {
	case err := <-done:
		t.Fatalf("it ended with %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	d, err := c.Open(c.doors[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAWriteThatMayHaveBeenCarriedOutIsNotMadeTwice(t *testing.T) {
	c := newCluster(t, 2)
	to := c.client()
	abort := func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	c.doors[0].Block(abort)
	err := create(t.Context(), to, "web")
	if lost := new(client.UncertainError); !errors.As(err, &lost) || connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	if c.doors[1].Calls() > 0 {
		t.Error("another manager was asked")
	}
	// A read is.
	c.doors[1].Block(nil)
	if err := list(t.Context(), c.client()); err != nil {
		t.Error(err)
	}
}

func TestStaleAnswersAreToldOnce(t *testing.T) {
	c := newCluster(t, 1)
	lost := time.Now().Add(-time.Hour).Truncate(time.Second)
	c.doors[0].Block(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Warren-Stale", "true")
		w.Header().Set("Warren-Leaderless-Since", lost.UTC().Format(time.RFC3339))
		return false
	})
	var told []time.Time
	to := c.clientWith(func(since time.Time) { told = append(told, since) })
	for range 3 {
		if err := list(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 1 || !told[0].Equal(lost) {
		t.Errorf("told %v", told)
	}
}

func TestWhoeverGivesUpIsNotKeptWaiting(t *testing.T) {
	c := newCluster(t, 2)
	for _, d := range c.doors {
		d.Block(refuse("an election is under way"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := create(ctx, c.client(), "web"); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAnotherClustersManagerIsNotTrusted(t *testing.T) {
	c, other := newCluster(t, 1), newCluster(t, 1)
	mine, err := other.Credentials(warrenv1.Role_ROLE_ADMIN, "ann")
	if err != nil {
		t.Fatal(err)
	}
	to, err := client.New(client.Options{Addrs: []string{c.doors[0].Addr, other.doors[0].Addr}, Credentials: mine})
	if err != nil {
		t.Fatal(err)
	}
	if err := list(t.Context(), to); err != nil || c.doors[0].Calls() > 0 || other.doors[0].Calls() != 1 {
		t.Errorf("got %v, after %d calls to the stranger", err, c.doors[0].Calls())
	}
}

// deaf takes connections and says nothing.
func deaf(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			go func() { _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
	})
	return listener.Addr().String()
}

func TestAManagerThatTakesConnectionsAndSaysNothingIsPassedBy(t *testing.T) {
	c := newCluster(t, 1)
	began := time.Now()
	if err := create(t.Context(), c.client(deaf(t)), "web"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}
