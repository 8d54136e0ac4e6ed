package port

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is a protocol that has ports.
type Protocol string

// The protocols that services publish ports of.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Port is a port of the host's, at all its addresses.
type Port struct {
	Protocol Protocol
	Number   uint16
}

func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

func (p Port) compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Number, q.Number), cmp.Compare(p.Protocol, q.Protocol))
}

// Taken is a wanted port that is not reserved.
type Taken struct {
	Port Port
	// By is who has it, as far as can be told: "nginx (pid 12)".
	By string
	// Err is set instead if nobody has it and it cannot be reserved all the same.
	Err error
}

// String says it for people.
func (t Taken) String() string {
	if t.Err != nil {
		return fmt.Sprintf("port %s of this host cannot be reserved: %v", t.Port, t.Err)
	}
	return fmt.Sprintf("port %s of this host is in use by %s: stop that, or publish another port", t.Port, t.By)
}

func (t Taken) same(u Taken) bool {
	return t.Port == u.Port && t.By == u.By && fmt.Sprint(t.Err) == fmt.Sprint(u.Err)
}

// Keeper holds the ports it is told to, and tries those again that others have.
type Keeper struct {
	logger  *slog.Logger
	changed chan struct{}
	wake    chan struct{} // what is due next may have changed
	closing chan struct{}
	done    sync.WaitGroup

	mu     sync.Mutex
	wanted map[Port]*reservation
	closed bool
}

// reservation is one wanted port.
type reservation struct {
	sockets [2]int // of IPv4 and IPv6: -1 where there is none
	taken   *Taken // nil when it is reserved
	tries   int
	due     time.Time // of the next try
}

// New makes a keeper that keeps nothing yet. Its sockets are in the process's network namespace.
func New(logger *slog.Logger) *Keeper {
	k := &Keeper{
		logger:  logger,
		changed: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		wanted:  map[Port]*reservation{},
	}
	k.done.Go(k.run)
	return k
}

// Changed is readable when Taken may tell something new.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

// Set has the keeper keep exactly these ports. They have been tried when it returns. It fails, and
// changes nothing, if one of them cannot be a port.
func (k *Keeper) Set(wanted []Port) error {
	keep := map[Port]bool{}
	for _, p := range wanted {
		if p.Number == 0 {
			return fmt.Errorf("port %s: it must be 1 to 65535", p)
		}
		if p.Protocol != TCP && p.Protocol != UDP {
			return fmt.Errorf("port %s: the protocol must be %s or %s", p, TCP, UDP)
		}
		keep[p] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errors.New("the keeper of ports is closed")
	}
	before := k.taken()
	for p, r := range k.wanted {
		if !keep[p] {
			r.release()
			delete(k.wanted, p)
		}
	}
	var fresh []Port
	for p := range keep {
		if k.wanted[p] == nil {
			k.wanted[p] = &reservation{sockets: [2]int{-1, -1}}
			fresh = append(fresh, p)
		}
	}
	k.try(fresh)
	k.tell(before)
	signal(k.wake)
	return nil
}

// Taken are the wanted ports that are not reserved, in order.
func (k *Keeper) Taken() []Taken {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.taken()
}

func (k *Keeper) taken() []Taken {
	var all []Taken
	for _, r := range k.wanted {
		if r.taken != nil {
			all = append(all, *r.taken)
		}
	}
	slices.SortFunc(all, func(a, b Taken) int { return a.Port.compare(b.Port) })
	return all
}

// Close gives all ports back.
func (k *Keeper) Close() {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	k.closed = true
	close(k.closing)
	k.mu.Unlock()
	k.done.Wait()
	for p, r := range k.wanted {
		r.release()
		delete(k.wanted, p)
	}
}

// run tries taken ports again.
func (k *Keeper) run() {
	for {
		var due <-chan time.Time
		if next, waits := k.next(); waits {
			due = time.After(time.Until(next))
		}
		select {
		case <-due:
			k.again()
		case <-k.wake:
		case <-k.closing:
			return
		}
	}
}

// next is when the next port is to be tried again.
func (k *Keeper) next() (next time.Time, waits bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.wanted {
		if r.taken != nil && (!waits || r.due.Before(next)) {
			next, waits = r.due, true
		}
	}
	return next, waits
}

func (k *Keeper) again() {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, now := k.taken(), time.Now()
	var due []Port
	for p, r := range k.wanted {
		if r.taken != nil && !r.due.After(now) {
			due = append(due, p)
		}
	}
	k.try(due)
	k.tell(before)
}

// try reserves ports, and finds out who has those that it cannot.
func (k *Keeper) try(ports []Port) {
	slices.SortFunc(ports, Port.compare)
	var inUse []Port
	for _, p := range ports {
		r := k.wanted[p]
		err := r.reserve(p)
		if err == nil {
			if r.taken != nil {
				k.logger.Info("a published port that another program had is now Warren's", "port", p.String())
			}
			r.taken, r.tries = nil, 0
			continue
		}
		r.tries++
		r.due = time.Now().Add(retryDelay(r.tries))
		if errors.Is(err, unix.EADDRINUSE) {
			inUse = append(inUse, p)
			continue
		}
		k.refuse(p, Taken{Port: p, Err: err})
	}
	if len(inUse) == 0 {
		return
	}
	by := holders(inUse)
	for _, p := range inUse {
		k.refuse(p, Taken{Port: p, By: by[p]})
	}
}

func (k *Keeper) refuse(p Port, t Taken) {
	r := k.wanted[p]
	if r.taken == nil || !r.taken.same(t) {
		k.logger.Warn("a published port cannot be opened on this host; trying again until it can", "port", p.String(), "reason", t.String())
	}
	r.taken = &t
}

// tell makes Changed readable if Taken differs from what it was.
func (k *Keeper) tell(before []Taken) {
	if !slices.EqualFunc(before, k.taken(), Taken.same) {
		signal(k.changed)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is signalled already
	}
}

// retryDelay is the pause after so many failed tries: 1 s, doubling to 30 s.
func retryDelay(tries int) time.Duration {
	const first, most = time.Second, 30 * time.Second
	if tries > 5 {
		return most
	}
	return min(first<<(tries-1), most)
}
