package simulation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/anishathalye/porcupine"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/consensus/consensustest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var (
	howRead   = flag.String("reads", string(verified), "what managers do before they answer: verified, or leased to see what comes of it")
	schedules = flag.Int("schedules", someSchedules, "how many schedules of faults to run for each seed")
)

const (
	users       = 5
	names       = 3
	faultsFor   = 4 * time.Second
	callTimeout = 8 * time.Second
)

func TestUsersSeeOneManagerThatNeverFails(t *testing.T) {
	// The same schedules every time, so that it is a change's own fault when it fails; -seed and -seeds are for
	// looking further.
	first := max(1, *firstSeed)
	total := 0
	for i := range uint64(*seeds) {
		seed := first + i
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			var histories []*history
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
				operations += len(h.operations)
				open += h.unknown
				if info, err := h.check(); err != nil {
					t.Errorf("schedule %d: %v", n, err)
					h.tell(t)
					draw(t, info)
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
func draw(t *testing.T, info porcupine.LinearizationInfo) {
	f, err := os.CreateTemp("", "warren-history-*.html") //nolint:usetesting // it is to be there when the test has ended
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := porcupine.Visualize(model, info, f); err != nil {
		t.Error(err)
	}
	t.Logf("a picture of it is in %s", f.Name())
}

// quorum is three managers and what happens to them.
type quorum struct {
	t       *testing.T
	random  *rand.Rand
	network *consensustest.Network
	peers   []*peer
	values  int // of which there are no two
	history *history
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
func (q *quorum) schedule() *history {
	h := &history{}
	q.history = h
	stop := make(chan struct{})
	var working sync.WaitGroup
	for i := range users {
		u := &user{q: q, h: h, id: i, random: rand.New(rand.NewPCG(q.random.Uint64(), 0)), seen: map[string]*warrenv1.Service{}}
		working.Go(func() { u.work(stop) })
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
	last := &user{q: q, h: h, id: users, random: rand.New(rand.NewPCG(q.random.Uint64(), 0)), seen: map[string]*warrenv1.Service{}}
	for i := range names {
		last.get(nameOf(i))
	}
	// The next schedule begins with nothing. What somebody gave up waiting for may yet be done.
	q.await("all that was removed to be gone, everywhere", func() bool {
		left := 0
		for _, p := range q.peers {
			for s := range p.store.Snapshot().Services() {
				left++
				if p.leading.Load() && !s.GetRemoving() {
					last.delete(s.GetSpec().GetName())
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
func (q *quorum) value() value {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.values++
	return value{q.values, q.values}
}

// user is somebody who asks managers for things, one after the other.
type user struct {
	q      *quorum
	h      *history
	id     int
	random *rand.Rand
	seen   map[string]*warrenv1.Service // as last read
}

func (u *user) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(u.random.Int64N(int64(200 * time.Millisecond)))):
		}
		name := nameOf(u.random.IntN(names))
		switch u.random.IntN(12) {
		case 0, 1:
			u.create(name)
		case 2, 3, 4:
			u.update(name)
		case 5, 6:
			u.scale(name)
		case 7:
			u.delete(name)
		default:
			u.get(name)
		}
	}
}

func (u *user) create(name string) {
	want := u.q.value()
	r, _ := ask(u, request{kind: createService, name: name, want: want}, func(ctx context.Context, p *peer) (*connect.Response[warrenv1.CreateServiceResponse], error) {
		return p.services.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: spec(name, want)}))
	})
	if r != nil {
		u.seen[name] = r.GetService()
	}
}

func (u *user) update(name string) {
	read := u.seen[name]
	if read == nil {
		u.get(name)
		return
	}
	want := u.q.value()
	_, v := ask(u, request{kind: updateService, name: name, read: valueOf(read), want: want}, func(ctx context.Context, p *peer) (*connect.Response[warrenv1.UpdateServiceResponse], error) {
		return p.services.UpdateService(ctx, connect.NewRequest(&warrenv1.UpdateServiceRequest{Ref: name, Version: read.GetMeta().GetVersion(), Spec: spec(name, want)}))
	})
	if v != unknown {
		delete(u.seen, name)
	}
}

func (u *user) scale(name string) {
	want := u.q.value()
	ask(u, request{kind: scaleService, name: name, want: want}, func(ctx context.Context, p *peer) (*connect.Response[warrenv1.ScaleServiceResponse], error) {
		return p.services.ScaleService(ctx, connect.NewRequest(&warrenv1.ScaleServiceRequest{Ref: name, Replicas: uint32(want.replicas)}))
	})
}

func (u *user) delete(name string) {
	ask(u, request{kind: deleteService, name: name}, func(ctx context.Context, p *peer) (*connect.Response[warrenv1.DeleteServiceResponse], error) {
		return p.services.DeleteService(ctx, connect.NewRequest(&warrenv1.DeleteServiceRequest{Ref: name}))
	})
}

func (u *user) get(name string) verdict {
	r, v := ask(u, request{kind: getService, name: name}, func(ctx context.Context, p *peer) (*connect.Response[warrenv1.GetServiceResponse], error) {
		return p.services.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name}))
	})
	if r != nil {
		u.seen[name] = r.GetEntry().GetService()
	}
	return v
}

func spec(name string, v value) *warrenv1.ServiceSpec {
	return &warrenv1.ServiceSpec{
		Name: name, Labels: map[string]string{"value": strconv.Itoa(v.label)},
		Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: uint32(v.replicas)}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "image"}},
	}
}

// nameOf returns a name that no id begins with.
func nameOf(i int) string { return fmt.Sprintf("app-%d", i) }

func valueOf(s *warrenv1.Service) value {
	label, _ := strconv.Atoi(s.GetSpec().GetLabels()["value"])
	return value{label, int(s.GetSpec().GetReplicated().GetReplicas())}
}

// ask asks one manager after the other until one gives an answer, and puts it into the history. Where a
// manager says that nothing came of it, that is believed; where it says that something may have, or
// says nothing, nobody else is asked.
func ask[R any](u *user, q request, call func(context.Context, *peer) (*connect.Response[R], error)) (*R, verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	began := u.h.begin()
	for ctx.Err() == nil {
		p := u.q.peers[u.random.IntN(len(u.q.peers))]
		_, alive := p.running()
		if node, _ := p.running(); node == nil {
			time.Sleep(10 * time.Millisecond) // nobody listens there
			continue
		}
		res, err := call(merge(ctx, alive), p)
		verdict, sure := judge(err)
		if !sure {
			if q.kind != getService {
				u.h.end(u.id, q, began, reply{verdict: unknown})
				return nil, unknown
			}
			continue
		}
		if verdict < 0 {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		r := reply{verdict: verdict}
		var message *R
		if res != nil {
			message = res.Msg
			if got, ok := any(message).(*warrenv1.GetServiceResponse); ok {
				r.seen, r.removing = valueOf(got.GetEntry().GetService()), got.GetEntry().GetService().GetRemoving()
			}
		}
		u.h.end(u.id, q, began, r)
		return message, verdict
	}
	return nil, unknown // nothing came of it
}

// merge returns a context that ends with either.
func merge(ctx, other context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(other, cancel)
	return ctx
}

// judge tells what an answer means; -1 that nothing was done. It is not sure where the caller does not know
// whether anything was.
func judge(err error) (v verdict, sure bool) {
	var told *connect.Error
	if err == nil {
		return done, true
	}
	if !errors.As(err, &told) {
		return unknown, false
	}
	switch told.Code() {
	case connect.CodeAlreadyExists:
		return taken, true
	case connect.CodeNotFound:
		return missing, true
	case connect.CodeFailedPrecondition:
		return removing, true
	case connect.CodeAborted:
		return changed, true
	case connect.CodeUnavailable:
		if connect.IsWireError(err) && !strings.Contains(told.Message(), consensus.ErrUnknownOutcome.Error()) {
			return -1, true
		}
	}
	return unknown, false
}
