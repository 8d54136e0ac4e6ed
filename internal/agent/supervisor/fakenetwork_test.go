package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeNetwork is an overlay without a kernel. It outlives supervisors, and notes when something happens that
// never must.
type fakeNetwork struct {
	runtime *fakeRuntime
	// attachTime is how long attaching takes.
	attachTime time.Duration

	mu        sync.Mutex
	size      int // how many addresses it has
	places    map[string]*fakePlace
	declaring map[string]bool // by task: its service declares 8080/tcp
	listens   map[string]bool // by container: its program listens
	served    map[string]bool
	changed   chan struct{} // closed when up or listens changes
	up        bool
	trouble   map[string]error // by method: what it answers

	busy       map[string]string // by task: what is being done
	calls      []string
	violations []string
}

type fakePlace struct {
	address   netip.Addr
	namespace bool
}

func newFakeNetwork(r *fakeRuntime) *fakeNetwork {
	n := &fakeNetwork{
		runtime: r, size: 1000, up: true, places: map[string]*fakePlace{}, declaring: map[string]bool{},
		listens: map[string]bool{}, served: map[string]bool{}, trouble: map[string]error{},
		changed: make(chan struct{}), busy: map[string]string{},
	}
	r.network = n
	return n
}

// change changes something that others may wait for.
func (n *fakeNetwork) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *fakeNetwork) setUp(up bool) { n.change(func() { n.up = up }) }

func (n *fakeNetwork) setTrouble(method string, err error) {
	n.change(func() { n.trouble[method] = err })
}

func (n *fakeNetwork) violate(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.violations = append(n.violations, fmt.Sprintf(format, args...))
}

// called notes a call.
func (n *fakeNetwork) called(what, task string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, what+" "+task)
}

// alone notes a call that must be the only one of its task, until the function it returns is called.
func (n *fakeNetwork) alone(what, task string) func() {
	n.called(what, task)
	n.mu.Lock()
	defer n.mu.Unlock()
	if other := n.busy[task]; other != "" {
		n.violations = append(n.violations, fmt.Sprintf("%s of %s during %s", what, task, other))
	}
	n.busy[task] = what
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.busy, task)
	}
}

func (n *fakeNetwork) Attach(ctx context.Context, a *warrenv1.Assignment, progress func(string)) (Place, error) {
	task := a.GetTask().GetMeta().GetId()
	defer n.alone("attach", task)()
	if !onOverlay(a.GetSpec()) {
		n.violate("task %s was attached, which is not on the overlay", task)
	}
	for {
		n.mu.Lock()
		up, changed, err := n.up, n.changed, n.trouble["attach"]
		n.mu.Unlock()
		if err != nil {
			return Place{}, err
		}
		if up {
			break
		}
		progress("waiting for the overlay")
		select {
		case <-changed:
		case <-ctx.Done():
			return Place{}, ctx.Err()
		}
	}
	place, err := n.lease(task)
	if err != nil {
		return Place{}, err
	}
	if !pause(ctx, n.attachTime, nil) {
		return Place{}, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	place.namespace = true
	return Place{Namespace: "/run/" + task, Address: place.address, ResolvConf: []byte("nameserver 10.0.0.1\n")}, nil
}

func (n *fakeNetwork) lease(task string) (*fakePlace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if place := n.places[task]; place != nil {
		return place, nil
	}
	address := netip.MustParseAddr("10.0.0.2")
	for slices.ContainsFunc(slices.Collect(maps.Values(n.places)), func(p *fakePlace) bool { return p.address == address }) {
		address = address.Next()
	}
	if len(n.places) >= n.size {
		return nil, errors.New("network: no address left in 10.0.0.0/24")
	}
	n.places[task] = &fakePlace{address: address}
	return n.places[task], nil
}

func (n *fakeNetwork) Declares(task string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.declaring[task]
}

func (n *fakeNetwork) Listening(ctx context.Context, task string, missing func(string)) error {
	for {
		running := n.runtime.running()
		n.mu.Lock()
		listens, changed := !n.declaring[task], n.changed
		for _, id := range running {
			listens = listens || n.listens[id] && taskOf(id) == task
		}
		n.mu.Unlock()
		if listens {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(2 * time.Second):
			missing("8080/tcp")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *fakeNetwork) Serve(task string) {
	n.called("serve", task)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.places[task] == nil {
		n.violations = append(n.violations, fmt.Sprintf("task %s is served without a place", task))
	}
	n.served[task] = true
}

func (n *fakeNetwork) Withdraw(task string) {
	n.called("withdraw", task)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.served, task)
}

func (n *fakeNetwork) Detach(ctx context.Context, task string) error {
	defer n.alone("detach", task)()
	for _, id := range n.runtime.all() {
		if taskOf(id) == task {
			n.violate("task %s was detached while container %s was there", task, id)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(ctx.Err(), n.trouble["detach"]); err != nil {
		return err
	}
	delete(n.places, task)
	delete(n.served, task)
	return nil
}

func (n *fakeNetwork) Attached(context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.places)), n.trouble["attached"]
}

// reboot loses all but what is on disk.
func (n *fakeNetwork) reboot() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.served)
	for _, place := range n.places {
		place.namespace = false
	}
}

// has tells whether a container may be made: it is where its task has its place.
func (n *fakeNetwork) has(c Container) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !onOverlay(c.Spec) {
		return c.Place.Namespace == "" && c.Place.address() == ""
	}
	place := n.places[c.TaskID]
	return place != nil && place.namespace && place.address == c.Place.Address && c.Place.Namespace == "/run/"+c.TaskID
}

func (n *fakeNetwork) serves(task string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.served[task]
}

// take returns the calls since it was last called.
func (n *fakeNetwork) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	calls := n.calls
	n.calls = nil
	return calls
}
