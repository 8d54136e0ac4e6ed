package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/agent/overlay/rules/conntrack"
	"github.com/cuemby/warren/internal/agent/overlay/rules/iptables"
	"github.com/cuemby/warren/internal/agent/overlay/rules/netfilter"
	"github.com/cuemby/warren/internal/agent/overlay/rules/nft"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// Backend is what in the kernel the rules are made of.
type Backend string

// The backends. Auto takes nftables where the kernel can do what the rules need, and else iptables.
const (
	Auto     Backend = "auto"
	Nftables Backend = "nftables"
	IPTables Backend = "iptables"
)

// Options are how a node's rules are kept.
type Options struct {
	Backend Backend // Auto if empty
	// Program is the iptables to use, by name or path: the host's own, "iptables", if empty. PROGRAM-save and
	// PROGRAM-restore stand beside it.
	Program string
	// Recheck is how often what tells nothing of its changes (iptables-legacy) is looked after; 30 s if zero.
	Recheck time.Duration
	Logger  *slog.Logger
}

// Rules are the packet rules of one node, in the network namespace of the thread that opened them.
//
// Who may speak to whom is decided where a connection begins: a packet of a local task to an address of the
// node range has to go to a task that is known here to share a network with it, or it is refused. It is looked
// at once more where it arrives: a packet of a task that is known to share no network is refused, but one of an
// address that is not known is let through, as the source's node has checked it, and news of a task may come
// later than its first packet. Published ports are for everyone. A task is known from the return of the Apply
// that brought it, so bring a task before it starts, with its neighbours.
//
// All methods may be called at the same time.
type Rules struct {
	log     *slog.Logger
	recheck time.Duration
	node    traffic.Node
	in      netfilter.Namespace
	shared  *iptables.Shared // nil where there is no iptables
	kind    Backend
	cutter  *conntrack.Cutter

	mu      sync.Mutex
	facts   *traffic.Facts // nil before the first full set
	failed  bool           // what is in force may not be what is known: the next to come makes all anew
	backend backend
	other   backend // whatever may be left of the other kind, until it was cleared
}

// backend puts facts in force.
type backend interface {
	// Replace makes all anew from facts and swaps it for what stands.
	Replace(context.Context, *traffic.Facts) error
	// Apply makes a change, which the facts have taken in already. After an error all has to be made anew.
	Apply(context.Context, *traffic.Facts, traffic.Delta) error
	// Intact tells whether what was made still stands.
	Intact(context.Context) (bool, error)
	// Ours tells whether the kernel's news from a socket are of our own doing, Owns whether a table is the one
	// in force.
	Ours(socket uint32) bool
	Owns(table string) bool
	// Clear removes all but what is cleared of iptables.Shared.
	Clear(context.Context) error
	Close()
}

// Open finds out what the kernel can do. It changes nothing: rules of an earlier process stand until Replace
// has the next in force.
func Open(ctx context.Context, node traffic.Node, options Options) (*Rules, error) {
	if err := node.Validate(); err != nil {
		return nil, fmt.Errorf("rules of the overlay: %w", err)
	}
	in, err := netfilter.Own()
	if err != nil {
		return nil, err
	}
	r := &Rules{log: options.Logger, recheck: options.Recheck, node: node, in: in}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.recheck <= 0 {
		r.recheck = 30 * time.Second
	}
	if err := r.choose(ctx, options); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	r.cutter = conntrack.Start(node, in, r.log, r.known)
	r.log.InfoContext(ctx, "packet rules are kept", "backend", string(r.kind), "iptables", r.shared.Describe())
	return r, nil
}

func (r *Rules) choose(ctx context.Context, options Options) error {
	program := options.Program
	if program == "" {
		program = "iptables"
	}
	var noTables error
	r.shared, noTables = iptables.Open(ctx, r.node, r.in, program)
	nftables := nft.New(r.node, r.in)
	switch options.Backend {
	case Auto, Nftables, "":
		err := nftables.Probe()
		if err == nil {
			r.kind, r.backend = Nftables, nftables
			return nil
		}
		nftables.Close()
		if options.Backend == Nftables {
			return fmt.Errorf("open nftables: %w; choose the backend iptables on this kernel", err)
		}
		r.log.InfoContext(ctx, "nftables cannot be used", "error", err)
	case IPTables:
		r.other = nftables
	default:
		return fmt.Errorf("backend %q: choose auto, nftables or iptables", options.Backend)
	}
	if noTables != nil {
		return fmt.Errorf("open iptables: %w; install the package iptables", noTables)
	}
	r.kind, r.backend = IPTables, iptables.NewBackend(r.shared)
	return nil
}

// Backend is the backend that was chosen.
func (r *Rules) Backend() Backend { return r.kind }

// Replace puts a full set in force in place of all there is. Established connections go on, but for what cannot,
// UDP to an endpoint that is gone and anything of a task that is dead: that is cut within some 20 ms, for which
// Settle waits.
func (r *Rules) Replace(ctx context.Context, set traffic.Set) error {
	all := traffic.Change{Services: set.Services, Tasks: set.Tasks}
	if err := all.Validate(r.node); err != nil {
		return fmt.Errorf("replace packet rules: %w", err)
	}
	next := traffic.NewFacts(r.node)
	next.Apply(all)

	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.renew(ctx, next); err != nil {
		return fmt.Errorf("replace packet rules: %w", err)
	}
	before := r.facts
	r.facts = next
	r.clearOther(ctx)
	r.cutter.Replaced(before, next)
	return nil
}

// renew makes all anew.
func (r *Rules) renew(ctx context.Context, f *traffic.Facts) error {
	err := r.backend.Replace(ctx, f)
	if err == nil {
		err = r.shared.Ensure(ctx) // only now: it accepts what the backend does not refuse
	}
	r.failed = err != nil
	return err
}

// clearOther removes what an earlier process may have left in the other backend. It is no failure of the
// rules if that cannot be done; the next Replace tries again.
func (r *Rules) clearOther(ctx context.Context) {
	var err error
	if r.kind == Nftables {
		err = r.shared.Clear(ctx, true)
	} else if r.other != nil {
		if err = r.other.Clear(ctx); err == nil {
			r.other.Close()
			r.other = nil
		}
	}
	if err != nil {
		r.log.DebugContext(ctx, "cannot clear the other backend", "error", err)
	}
}

// Apply puts a change in force, whole and at once. When it returns no new connection goes where it should not any
// more; what cannot go on is cut as with Replace. A change that fails is known all the same, and in force with
// the next Apply or Repair that does not fail.
func (r *Rules) Apply(ctx context.Context, change traffic.Change) error {
	if err := change.Validate(r.node); err != nil {
		return fmt.Errorf("change packet rules: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.facts == nil {
		return errors.New("change packet rules: there are none yet: replace them with a full set first")
	}
	d := r.facts.Apply(change)
	var err error
	if r.failed {
		err = r.renew(ctx, r.facts)
	} else if !d.Empty() {
		err = r.backend.Apply(ctx, r.facts, d)
		if err != nil {
			// What stands is not what we took it for. What should is known: make it anew.
			r.log.WarnContext(ctx, "a change does not fit the packet rules, all are made anew", "error", err)
			err = r.renew(ctx, r.facts)
		}
	}
	if err != nil {
		return fmt.Errorf("change packet rules: %w", err)
	}
	r.cutter.Changed(d)
	return nil
}

// known asks about what is known, which does not change meanwhile; nothing is before the first full set and after Remove.
func (r *Rules) known(ask func(*traffic.Facts) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.facts != nil && ask(r.facts)
}

// Settle waits until what could not go on is cut of all that Replace and Apply have put in force so far.
func (r *Rules) Settle(ctx context.Context) error { return r.cutter.Settle(ctx) }

// Repair looks whether all stands and makes anew what does not. It tells whether anything was missing.
func (r *Rules) Repair(ctx context.Context) (bool, error) { return r.repair(ctx, "") }

// repair takes the table named, if any, for spoilt.
func (r *Rules) repair(ctx context.Context, spoilt string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.facts == nil {
		return false, nil
	}
	broken := r.failed || spoilt != "" && r.backend.Owns(spoilt)
	if !broken {
		intact, err := r.backend.Intact(ctx)
		if err != nil {
			return false, fmt.Errorf("look after packet rules: %w", err)
		}
		broken = !intact
	}
	if broken {
		if err := r.renew(ctx, r.facts); err != nil {
			return true, fmt.Errorf("repair packet rules: %w", err)
		}
		return true, nil
	}
	whole, err := r.shared.Intact(ctx)
	if err != nil {
		return false, fmt.Errorf("look after packet rules: %w", err)
	}
	if !whole {
		if err := r.shared.Ensure(ctx); err != nil {
			return true, fmt.Errorf("repair packet rules: %w", err)
		}
	}
	return !whole, nil
}

// Remove removes everything of ours, the operator's chain too, and whatever stands only because of it.
func (r *Rules) Remove(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts = nil
	err := r.backend.Clear(ctx)
	if r.other != nil {
		err = errors.Join(err, r.other.Clear(ctx))
	}
	if err := errors.Join(err, r.shared.Clear(ctx, false)); err != nil {
		return fmt.Errorf("remove packet rules: %w", err)
	}
	return nil
}

// Close lets go of the kernel and leaves the rules in force.
func (r *Rules) Close() error {
	r.cutter.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts = nil
	r.backend.Close()
	if r.other != nil {
		r.other.Close()
	}
	return r.in.Close()
}
