package simulation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/consensus/consensustest"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
	"github.com/cuemby/warren/test/history"
)

var (
	howRead   = flag.String("reads", string(verified), "what managers do before they answer: verified, or leased to see what comes of it")
	schedules = flag.Int("schedules", someSchedules, "how many schedules of faults to run for each seed")
)

const (
	users     = 5
	names     = 3
	faultsFor = 4 * time.Second
)

func TestUsersSeeOneManagerThatNeverFails(t *testing.T) {
	// The same schedules every time, so that it is a change's own fault when it fails; -seed and -seeds are for
	// looking further.
	first := max(1, *firstSeed)
	total := 0
	for i := range uint64(*seeds) {
		seed := first + i
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			var histories []*history.History
			synctest.Test(t, func(t *testing.T) {
				q := newQuorum(t, seed, reads(*howRead))
				defer q.stop()
				for range *schedules {
					if h := q.schedule(); h != nil {
						histories = append(histories, h)
					}
					if t.Failed() {
						return
					}
				}
			})
			operations, open := 0, 0
			for n, h := range histories {
				some, unknown := h.Count()
				operations += some
				open += unknown
				if err := h.Check(); err != nil {
					t.Errorf("schedule %d: %v", n, err)
					draw(t, err)
					break
				}
			}
			total += len(histories)
			t.Logf("%d schedules with %d operations, %d of unknown outcome", len(histories), operations, open)
			if t.Failed() {
				t.Logf("replay with: go test ./internal/manager/simulation -run NeverFails -seed %d -seeds 1", seed)
			}
		})
	}
	t.Logf("%d schedules", total)
}

// draw keeps a picture of a history that cannot be explained.
func draw(t *testing.T, err error) {
	unexplained := new(history.UnexplainedError)
	if !errors.As(err, &unexplained) {
		return
	}
	path, err := unexplained.Draw()
	if err != nil {
		t.Error(err)
	}
	t.Logf("a picture of it is in %s", path)
}

// quorum is three managers and what happens to them.
type quorum struct {
	t       *testing.T
	random  *rand.Rand
	network *consensustest.Network
	peers   []*peer
	values  int // of which there are no two
	mu      sync.Mutex
	slow    time.Duration // the longest that a message takes
	late    string        // the manager that hears everything late
	noise   *rand.Rand    // guarded by mu
}

func newQuorum(t *testing.T, seed uint64, how reads) *quorum {
	q := &quorum{t: t, random: rand.New(rand.NewPCG(seed, 0)), noise: rand.New(rand.NewPCG(seed, 1)), network: consensustest.NewNetwork()}
	q.network.Delay(q.delay)
	for i := range 3 {
		q.peers = append(q.peers, newPeer(t, fmt.Sprintf("m%d", i+1), q.network, how))
	}
	for i, p := range q.peers {
		p.start()
		node, _ := p.running()
		if i == 0 {
			if err := node.Bootstrap(""); err != nil {
				t.Fatal(err)
			}
			continue
		}
		leader := q.leader()
		if leader == nil {
			t.Fatal("the first manager does not lead")
		}
		if err := leader.AddVoter(context.Background(), p.id, p.id); err != nil {
			t.Fatal(err)
		}
		q.await("the newcomer to be known", func() bool { return q.peers[1].knows(i+1) && p.knows(i+1) })
	}
	return q
}

// knows tells whether a peer knows of so many managers.
func (p *peer) knows(n int) bool {
	node, _ := p.running()
	return node != nil && len(node.Servers()) == n
}

func (q *quorum) stop() {
	for _, p := range q.peers {
		if node, _ := p.running(); node != nil {
			p.kill()
		}
		p.wire.calls.Wait()
	}
}

// await waits until something is so.
func (q *quorum) await(what string, is func() bool) {
	q.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			q.t.Fatalf("waited a minute for %s", what)
		}
	}
}

// leader waits for a leader and returns its node.
func (q *quorum) leader() (leader *consensus.Node) {
	q.t.Helper()
	q.await("a leader", func() bool {
		for _, p := range q.peers {
			if node, alive := p.running(); node != nil && p.leading.Load() && node.VerifyLeader(alive) == nil {
				leader = node
				return true
			}
		}
		return false
	})
	return leader
}

// delay is how long a message takes: most are quick, and some are as slow as they can be now.
func (q *quorum) delay(_, to string) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.late == to {
		return 150*time.Millisecond + time.Duration(q.noise.Int64N(int64(80*time.Millisecond)))
	}
	d := time.Duration(q.noise.Int64N(int64(2 * time.Millisecond)))
	if q.slow > 0 && q.noise.IntN(4) == 0 {
		d += time.Duration(q.noise.Int64N(int64(q.slow)))
	}
	return d
}

// slowly has some messages take up to so long from now on.
func (q *quorum) slowly(longest time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slow, q.late = longest, ""
}

func (q *quorum) upTo(d time.Duration) time.Duration { return time.Duration(q.random.Int64N(int64(d))) }

// schedule has users at work while things go wrong, and returns what they were told. Everything is mended
// at the end, when the managers must be of one mind.
func (q *quorum) schedule() *history.History {
	h := &history.History{}
	stop := make(chan struct{})
	var working sync.WaitGroup
	for i := range users {
		u := q.user(h, i)
		working.Go(func() { u.Work(stop, func(r *rand.Rand) string { return nameOf(r.IntN(names)) }) })
	}
	for began := time.Now(); time.Since(began) < faultsFor; {
		time.Sleep(50*time.Millisecond + q.upTo(time.Second))
		q.happen()
	}
	close(stop)
	working.Wait()
	q.mend()
	time.Sleep(2 * time.Second) // in which what is on its way arrives
	q.leader()
	last := q.user(h, users)
	for i := range names {
		last.Get(nameOf(i))
	}
	// The next schedule begins with nothing. What somebody gave up waiting for may yet be done.
	q.await("all that was removed to be gone, everywhere", func() bool {
		left := 0
		for _, p := range q.peers {
			for s := range p.store.Snapshot().Services() {
				left++
				if p.leading.Load() && !s.GetRemoving() {
					last.Delete(s.GetSpec().GetName())
				}
			}
		}
		return left == 0
	})
	q.await("the managers to have the same state", func() bool {
		return differ(q.peers[0].store.Snapshot(), q.peers[1].store.Snapshot()) == nil && differ(q.peers[0].store.Snapshot(), q.peers[2].store.Snapshot()) == nil
	})
	return h
}

// happen does one thing to the managers.
func (q *quorum) happen() {
	p, other := q.peers[q.random.IntN(3)], q.peers[q.random.IntN(3)]
	if q.random.IntN(2) == 0 { // most of what is worth breaking is the leader's
		for _, l := range q.peers {
			if l.leading.Load() {
				p = l
			}
		}
	}
	node, alive := p.running()
	switch q.random.IntN(12) {
	case 0, 1:
		q.network.Isolate(p.id)
	case 2:
		q.network.Cut(p.id, other.id)
	case 3, 10, 11: // it hears everything late, and then is not heard
		q.mu.Lock()
		q.late = p.id
		q.mu.Unlock()
		time.Sleep(time.Second)
		for _, other := range q.peers {
			q.network.Cut(p.id, other.id)
		}
	case 4:
		q.network.MendAll()
	case 5, 6:
		if node != nil {
			p.kill()
		} else {
			p.start()
		}
	case 7:
		q.slowly([]time.Duration{0, 50 * time.Millisecond, 800 * time.Millisecond}[q.random.IntN(3)])
	case 8:
		if node != nil {
			_ = node.TransferLeadership(alive)
		}
	case 9:
		p.disk.Fill(q.random.IntN(2) == 0)
	}
}

// mend ends all that is wrong.
func (q *quorum) mend() {
	q.slowly(0)
	q.network.MendAll()
	for _, p := range q.peers {
		p.disk.Fill(false)
		if node, _ := p.running(); node == nil {
			p.start()
		}
	}
}

// value returns a value that no other write makes.
func (q *quorum) value() history.Value {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.values++
	return history.Value{Label: q.values, Replicas: q.values}
}

// user is somebody who asks any of the managers for things.
func (q *quorum) user(h *history.History, id int) *history.User {
	return &history.User{ID: id, History: h, Random: rand.New(rand.NewPCG(q.random.Uint64(), 0)), Value: q.value, Manager: q.manager}
}

// manager draws a manager.
func (q *quorum) manager(random *rand.Rand) (warrenv1connect.ServiceServiceClient, context.Context) {
	p := q.peers[random.IntN(len(q.peers))]
	node, alive := p.running()
	if node == nil {
		return nil, nil
	}
	return p.services, alive
}

// nameOf returns a name that no id begins with.
func nameOf(i int) string { return fmt.Sprintf("app-%d", i) }
