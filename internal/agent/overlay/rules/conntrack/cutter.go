package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay/rules/netfilter"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// Cutter removes connections that cannot go on from the kernel's table. What comes of them next is taken for
// new: UDP goes to another endpoint, and TCP is reset by whoever knows nothing of it. To look through the table
// takes 20 ms even when it is empty (measured, at its 262,144 buckets), so that while it looks, what is to be
// looked for next gathers. It holds no lock meanwhile that changes of the rules need; but the kernel, which reads
// the table with a processor to itself, has a change wait that comes in between (measured: 44 ms where it
// takes 6, of which 1 µs is for the lock).
//
// Its methods may be called at the same time.
type Cutter struct {
	node  traffic.Node
	in    netfilter.Namespace
	log   *slog.Logger
	known Known

	wake  chan struct{}
	ended chan struct{}
	stop  context.CancelFunc

	mu      sync.Mutex
	waiting *look // not begun
	running *look
}

// look is one look through the table.
type look struct {
	cuts
	done chan struct{}
	err  error // once done
}

// Known asks about what is known at the moment, which nobody changes meanwhile. It returns the answer, or false if
// nothing is known.
type Known func(ask func(*traffic.Facts) bool) bool

// Start starts the cutter of a node whose rules are in a namespace, which stays open until the cutter is closed.
func Start(node traffic.Node, in netfilter.Namespace, log *slog.Logger, known Known) *Cutter {
	ctx, stop := context.WithCancel(context.Background())
	c := &Cutter{
		node: node, in: in, log: log, known: known,
		wake: make(chan struct{}, 1), ended: make(chan struct{}), stop: stop,
	}
	go c.run(ctx)
	return c
}

// Close ends the cutter, with what it has not cut yet.
func (c *Cutter) Close() {
	c.stop()
	<-c.ended
}

// Changed has cut soon, within some 20 ms, what a change that is in force now makes unable to go on.
func (c *Cutter) Changed(d traffic.Delta) { c.cut(cutsOf(d)) }

// Replaced is the same for all that was known, nil for nothing, having been replaced.
func (c *Cutter) Replaced(before, after *traffic.Facts) { c.cut(cutsBetween(before, after)) }

// cut has the cuts made soon.
func (c *Cutter) cut(what *cuts) {
	if what == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = &look{cuts: cuts{dead: map[netip.Addr]bool{}, opened: map[uint16]bool{}}, done: make(chan struct{})}
		c.wake <- struct{}{}
	}
	maps.Copy(c.waiting.dead, what.dead)
	maps.Copy(c.waiting.opened, what.opened)
}

func (c *Cutter) run(ctx context.Context) {
	defer close(c.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		now := c.waiting
		c.waiting, c.running = nil, now
		c.mu.Unlock()
		now.err = c.look(&now.cuts)
		if now.err != nil {
			c.log.WarnContext(ctx, "connections that cannot go on may linger", "error", now.err)
		}
		close(now.done)
	}
}

// Settle waits until all is cut that was to be when it was called. It returns why that failed, or ctx or the cutter ended
// before.
func (c *Cutter) Settle(ctx context.Context) error {
	c.mu.Lock()
	last := c.waiting
	if last == nil {
		last = c.running
	}
	c.mu.Unlock()
	if last == nil {
		return nil
	}
	select {
	case <-last.done:
		return last.err
	case <-c.ended:
		return errors.New("wait for connections to be cut: the rules were closed")
	case <-ctx.Done():
		return fmt.Errorf("wait for connections to be cut: %w", ctx.Err())
	}
}

// look looks through the table once.
func (c *Cutter) look(what *cuts) error {
	handle, err := netlink.NewHandleAt(netns.NsHandle(c.in.FD()), unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("connect to conntrack: %w", err)
	}
	defer handle.Close()
	s := stale{cuts: what, node: c.node, known: c.known, hosts: map[netip.Addr]bool{}}
	if len(what.opened) > 0 {
		addrs, err := handle.AddrList(nil, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list the host's addresses: %w", err)
		}
		for _, addr := range addrs {
			s.hosts[address(addr.IP)] = true
		}
	}
	_, err = handle.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("cut connections that cannot go on: %w", err)
	}
	return nil
}
