//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/history"
)

const (
	linearUsers = 12
	linearNames = 3 // at a time, so that users get in each other's way
	// scales is how many numbers of replicas there are. One that comes again would have to meet a service
	// that nobody has updated for so many writes.
	scales = 400
)

// fault is something bad that happens to a manager, and how it ends.
type fault struct {
	name       string
	begin, end func(ctx context.Context, m *seat, others []*seat) error
}

// on runs a shell command on the manager's machine, once for each other's address.
func on(command string) func(context.Context, *seat, []*seat) error {
	return func(ctx context.Context, m *seat, others []*seat) error {
		for _, other := range others {
			if _, err := m.Run(ctx, "sh", "-ec", command, "sh", other.IP().String()); err != nil {
				return err
			}
		}
		return nil
	}
}

var plugIn = on("iptables -F")

// faults are what happens to leaders. Users from afar still reach one that is only cut off from the others.
var faults = []fault{
	{
		"is killed",
		func(ctx context.Context, m *seat, _ []*seat) error { return m.KillUnit(ctx, cluster.ManagerUnit) },
		func(ctx context.Context, m *seat, _ []*seat) error { return m.startManager(ctx) },
	},
	{"hears nobody and is heard by none", on("iptables -A INPUT -s $1 -j DROP; iptables -A OUTPUT -d $1 -j DROP"), plugIn},
	{"hears nobody", on("iptables -A INPUT -s $1 -j DROP"), plugIn},
	{"is heard by none", on("iptables -A OUTPUT -d $1 -j DROP"), plugIn},
	{
		"has lost its cable",
		func(_ context.Context, m *seat, _ []*seat) error { return m.Partition() },
		func(_ context.Context, m *seat, _ []*seat) error { return m.Heal() },
	},
	{
		// It knows nothing of the time in between, and goes on in the belief that it leads.
		"stands still",
		func(ctx context.Context, m *seat, _ []*seat) error { return m.signal(ctx, "STOP") },
		func(ctx context.Context, m *seat, _ []*seat) error { return m.signal(ctx, "CONT") },
	},
	{
		"is restarted",
		func(ctx context.Context, m *seat, _ []*seat) error { return m.StopUnit(ctx, cluster.ManagerUnit) },
		func(ctx context.Context, m *seat, _ []*seat) error { return m.startManager(ctx) },
	},
}

func (s *seat) startManager(ctx context.Context) error {
	_, err := s.Run(ctx, "systemctl", "start", cluster.ManagerUnit)
	return err
}

func (s *seat) signal(ctx context.Context, signal string) error {
	_, err := s.Run(ctx, "systemctl", "kill", "--kill-who=main", "--signal="+signal, cluster.ManagerUnit)
	return err
}

func TestUsersOfThreeMachinesSeeOneManagerThatNeverFails(t *testing.T) {
	t.Parallel()
	r := newTrio(t)
	seed := rand.Uint64()
	t.Logf("seed %d decides what users do and what happens", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	h := &history.History{}
	var written, round atomic.Int64
	user := func(id int) *history.User {
		return &history.User{
			ID: id, History: h, Random: rand.New(rand.NewPCG(seed, uint64(id)+1)), Manager: r.near(id),
			Value: func() history.Value {
				n := int(written.Add(1))
				return history.Value{Label: n, Replicas: n % scales}
			},
		}
	}
	stop := make(chan struct{})
	var working sync.WaitGroup
	for id := range linearUsers {
		working.Go(func() {
			user(id).Work(stop, func(r *rand.Rand) string { return linearName(round.Load(), r.IntN(linearNames)) })
		})
	}
	// Twice each, in any order; and new names each time, so that what is not known of one write cannot
	// explain all that comes after.
	var err error
	for _, i := range append(random.Perm(len(faults)), random.Perm(len(faults))...) {
		if err = r.happen(faults[i], random); err != nil {
			break
		}
		round.Add(1)
	}
	close(stop)
	working.Wait()
	if err = errors.Join(err, r.whole()); err != nil {
		t.Fatal(err)
	}
	last := user(linearUsers)
	for i := range round.Load() {
		for j := range linearNames {
			last.Get(linearName(i, j))
		}
	}
	operations, unknown := h.Count()
	t.Logf("%d operations, %d of unknown outcome", operations, unknown)
	if least := 500; operations < least {
		t.Errorf("users did %d things, and should have got to %d", operations, least)
	}
	if err := h.Check(); err != nil {
		t.Error(err)
		unexplained := new(history.UnexplainedError)
		if errors.As(err, &unexplained) {
			path, err := unexplained.Draw()
			t.Logf("a picture of it is in %s (%v)", path, err)
		}
	}
}

// linearName returns a name that no id begins with.
func linearName(round int64, i int) string { return fmt.Sprintf("app-%d-%d", round, i) }

// near returns what draws a manager and a way to it, most often the one that is near to a user: so most go on
// while some wait for a manager that stands still, to be told what was true when it stopped.
func (r *trio) near(user int) func(*rand.Rand) (warrenv1connect.ServiceServiceClient, context.Context) {
	return func(random *rand.Rand) (warrenv1connect.ServiceServiceClient, context.Context) {
		s := r.all[user%len(r.all)]
		if random.IntN(5) == 0 {
			s = r.all[random.IntN(len(r.all))]
		}
		if random.IntN(2) == 0 {
			return s.local, r.ctx
		}
		return s.tls, r.ctx
	}
}

// happen has something bad happen to the leader, for as long as an election takes or longer.
func (r *trio) happen(f fault, random *rand.Rand) error {
	leader, others, err := r.leader()
	if err != nil {
		return err
	}
	r.t.Logf("%s leads and %s", leader.Name(), f.name)
	if err := f.begin(r.ctx, leader, others); err != nil {
		return err
	}
	if err := r.rest(time.Second + upTo(random, 2*time.Second)); err != nil {
		return err
	}
	if err := f.end(r.ctx, leader, others); err != nil {
		return err
	}
	return r.rest(upTo(random, time.Second))
}

// rest lets time pass.
func (r *trio) rest(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

func upTo(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(d)))
}
