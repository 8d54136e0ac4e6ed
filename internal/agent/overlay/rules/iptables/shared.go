package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"

	"github.com/cuemby/warren/internal/agent/overlay/rules/netfilter"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

const (
	// prefix begins the names of all our chains.
	prefix = "WARREN-"
	// userChain is the operator's: we make it, call it first and never write into it.
	userChain    = "WARREN-USER"
	forwardChain = "WARREN-FORWARD"
)

// Our jumps out of the built-in chains carry a comment. With iptables-nft a built-in chain stands only where
// someone has a rule in it; the comment tells, over restarts, that ours was the first, and the chain ours to
// take away.
const (
	hookComment = "warren"
	madeComment = "warren made this chain"
)

// hook is a jump from a built-in chain to one of ours.
type hook struct{ table, from, to string }

var (
	forwardHook = hook{"filter", "FORWARD", forwardChain}
	// moreHooks are those of iptables where there are no nftables.
	moreHooks = []hook{
		{"filter", "OUTPUT", "WARREN-OUTPUT"},
		{"nat", "PREROUTING", "WARREN-PREROUTING"},
		{"nat", "OUTPUT", "WARREN-OUTPUT"},
		{"nat", "POSTROUTING", "WARREN-POSTROUTING"},
		{"raw", "PREROUTING", "WARREN-RAW"},
	}
)

// Shared keeps the few chains in the tables that we share with other programs. Where Docker, say, has set
// FORWARD's policy to DROP, only a rule in that same table can accept. It is for one caller at a time, but for Ours.
//
// A nil Shared is that of a host without iptables, of which nobody can have set FORWARD's policy: nothing is to be kept there,
// and nothing is missing.
type Shared struct {
	node    traffic.Node
	in      netfilter.Namespace
	program string
	tables  *iptables.IPTables
	nft     bool // iptables-nft, whose tables are nftables' own
	filters bool // a Backend's WARREN-FORWARD decides who may speak to whom; else it accepts, and nftables decide

	made    map[hook]bool // the built-in chains that are there because of us
	ordered map[hook]bool // the jumps that this process has seen in their place

	mu       sync.Mutex
	children []uint32 // the latest of the programs we started
}

// Open finds the iptables to use for a node whose rules are in a namespace, by name or path; PROGRAM-save and PROGRAM-restore
// stand beside it. It returns an error if there is none.
func Open(ctx context.Context, node traffic.Node, in netfilter.Namespace, program string) (*Shared, error) {
	tables, err := iptables.New(iptables.Path(program), iptables.Timeout(10))
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", program, err)
	}
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", program, err)
	}
	return &Shared{
		node: node, in: in, program: program, tables: tables, nft: bytes.Contains(version, []byte("nf_tables")),
		made: map[hook]bool{}, ordered: map[hook]bool{},
	}, nil
}

// Describe says which iptables there are.
func (s *Shared) Describe() string {
	switch {
	case s == nil:
		return "none"
	case s.nft:
		return s.program + " (nf_tables)"
	}
	return s.program + " (legacy)"
}

// Told tells whether the kernel tells of all changes to what is kept.
func (s *Shared) Told() bool { return s == nil || s.nft }

func (s *Shared) hooks() []hook {
	if s.filters {
		return append([]hook{forwardHook}, moreHooks...)
	}
	return []hook{forwardHook}
}

// Ensure makes what is missing.
func (s *Shared) Ensure(context.Context) error {
	if s == nil {
		return nil
	}
	return s.in.Run(func() error {
		if err := s.ensureChain(userChain); err != nil {
			return err
		}
		if !s.filters {
			if err := s.ensureForward(); err != nil {
				return err
			}
		}
		return s.ensureHooks()
	})
}

func (s *Shared) ensureChain(name string) error {
	exists, err := s.tables.ChainExists("filter", name)
	if err == nil && !exists {
		err = s.tables.NewChain("filter", name)
	}
	if err != nil {
		return fmt.Errorf("make iptables chain %s: %w", name, err)
	}
	return nil
}

// forwardRules are those of WARREN-FORWARD where nftables decide.
func (s *Shared) forwardRules() [][]string {
	return [][]string{
		{"-j", userChain},
		{"-i", s.node.Bridge, "-j", "ACCEPT"},
		{"-o", s.node.Bridge, "-j", "ACCEPT"},
		{"-i", s.node.Device, "-j", "ACCEPT"},
		{"-o", s.node.Device, "-j", "ACCEPT"},
	}
}

// ensureForward brings WARREN-FORWARD up to date with no moment in which it lacks a rule.
func (s *Shared) ensureForward() error {
	if err := s.ensureChain(forwardChain); err != nil {
		return err
	}
	want := s.forwardRules()
	have, err := s.tables.List("filter", forwardChain)
	if err != nil {
		return fmt.Errorf("list iptables chain %s: %w", forwardChain, err)
	}
	have = have[1:] // the chain itself
	same := len(have) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = have[i] == "-A "+forwardChain+" "+strings.Join(want[i], " ")
	}
	if same {
		return nil
	}
	for i, rule := range want {
		if err := s.tables.Insert("filter", forwardChain, i+1, rule...); err != nil {
			return fmt.Errorf("fill iptables chain %s: %w", forwardChain, err)
		}
	}
	for range have {
		if err := s.tables.DeleteById("filter", forwardChain, len(want)+1); err != nil {
			return fmt.Errorf("tidy iptables chain %s: %w", forwardChain, err)
		}
	}
	return nil
}

// ensureHooks sees to the jumps. Once in the life of this process each is moved to the first place; later it
// only has to be there, or two programs that both want to be first would never end.
func (s *Shared) ensureHooks() error {
	for _, h := range s.hooks() {
		at, err := s.find(h)
		if err != nil {
			return err
		}
		if len(at) == 0 && s.nft && !s.made[h] {
			if s.made[h], err = s.missing(h); err != nil {
				return err
			}
		}
		if len(at) == 0 || at[0] != 1 && !s.ordered[h] {
			comment := hookComment
			if s.made[h] {
				comment = madeComment
			}
			if err := s.tables.Insert(h.table, h.from, 1, "-m", "comment", "--comment", comment, "-j", h.to); err != nil {
				return fmt.Errorf("call iptables chain %s from %s: %w", h.to, h.from, err)
			}
			if err := s.unhook(h, at, 1); err != nil {
				return err
			}
		}
		s.ordered[h] = true
	}
	return nil
}

// Intact tells whether the jumps stand, and what they lead to if that is not the Backend's.
func (s *Shared) Intact(context.Context) (bool, error) {
	if s == nil {
		return true, nil
	}
	whole := true
	err := s.in.Run(func() error {
		for _, h := range s.hooks() {
			stands, err := s.stands(h.table)
			if err != nil {
				return err
			}
			if !stands {
				whole = false
				return nil
			}
			at, err := s.find(h)
			if err != nil {
				return err
			}
			whole = whole && len(at) > 0
		}
		exists, err := s.tables.ChainExists("filter", userChain)
		if err != nil {
			return err
		}
		whole = whole && exists
		if s.filters || !whole {
			return nil
		}
		have, err := s.tables.List("filter", forwardChain)
		whole = len(have) == 1+len(s.forwardRules())
		return err
	})
	return whole, err
}

// find returns the places, counted from 1, of our jumps in a built-in chain, and takes note if they say that
// the chain is of our making.
func (s *Shared) find(h hook) ([]int, error) {
	list, err := s.tables.List(h.table, h.from)
	if err != nil {
		return nil, fmt.Errorf("list iptables chain %s: %w", h.from, err)
	}
	var at []int
	place := 0
	for _, rule := range list {
		if !strings.HasPrefix(rule, "-A ") {
			continue
		}
		place++
		if strings.HasSuffix(rule, "-j "+h.to) {
			at = append(at, place)
			if strings.Contains(rule, madeComment) {
				s.made[h] = true
			}
		}
	}
	return at, nil
}

// unhook removes jumps from their places, which have moved down by so many.
func (s *Shared) unhook(h hook, at []int, moved int) error {
	for _, place := range slices.Backward(at) {
		if err := s.tables.DeleteById(h.table, h.from, place+moved); err != nil {
			return fmt.Errorf("stop calling iptables chain %s from %s: %w", h.to, h.from, err)
		}
	}
	return nil
}

// missing tells whether a built-in chain of iptables-nft does not stand yet.
func (s *Shared) missing(h hook) (bool, error) {
	chains, err := s.nftChains(h.table)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == h.from }), nil
}

// nftChains lists the chains of a table of iptables-nft.
func (s *Shared) nftChains(table string) ([]*nftables.Chain, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(s.in.FD()))
	if err != nil {
		return nil, fmt.Errorf("connect to nftables: %w", err)
	}
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	return slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != table }), nil
}

// stands tells whether a table stands. Looking into one that does not would make it.
func (s *Shared) stands(table string) (bool, error) {
	if s.nft {
		chains, err := s.nftChains(table)
		return len(chains) > 0, err
	}
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Fields(string(names)), table), err
}

// Clear removes every jump and chain of ours, and what stands only because of them; with keep, those only that are not to be
// kept as things are.
func (s *Shared) Clear(ctx context.Context, keep bool) error {
	if s == nil {
		return nil
	}
	kept := map[hook]bool{}
	if keep {
		for _, h := range s.hooks() {
			kept[h] = true
		}
	}
	return s.in.Run(func() error {
		for _, table := range []string{"filter", "nat", "raw"} {
			if err := s.clearTable(ctx, table, kept); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Shared) clearTable(ctx context.Context, table string, kept map[hook]bool) error {
	if stands, err := s.stands(table); err != nil || !stands {
		return err
	}
	var gone []hook
	stays := map[string]bool{}
	for _, h := range append([]hook{forwardHook}, moreHooks...) {
		if h.table != table {
			continue
		}
		if kept[h] {
			stays[h.to], stays[userChain] = true, true
			continue
		}
		at, err := s.find(h)
		if err != nil {
			return err
		}
		if err := s.unhook(h, at, 0); err != nil {
			return err
		}
		gone = append(gone, h)
	}
	chains, err := s.ourChains(table)
	if err != nil {
		return err
	}
	chains = slices.DeleteFunc(chains, func(name string) bool { return stays[name] })
	if len(chains) > 0 {
		if err := s.restore(ctx, ruleset{}.replacing(table, chains)); err != nil {
			return err
		}
	}
	for _, h := range gone {
		if err := s.unmake(h); err != nil {
			return err
		}
		delete(s.ordered, h)
	}
	return nil
}

// ourChains lists our chains in a table.
func (s *Shared) ourChains(table string) ([]string, error) {
	chains, err := s.tables.ListChains(table)
	if err != nil {
		return nil, fmt.Errorf("list chains of iptables table %s: %w", table, err)
	}
	return slices.DeleteFunc(chains, func(name string) bool { return !strings.HasPrefix(name, prefix) }), nil
}

// unmake takes away a built-in chain that stands because of us and that nobody has come to use since, and the
// table if it was its last.
func (s *Shared) unmake(h hook) error {
	if !s.made[h] {
		return nil
	}
	delete(s.made, h)
	chains, err := s.nftChains(h.table)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Name == h.from })
	if at < 0 || chains[at].Policy != nil && *chains[at].Policy != nftables.ChainPolicyAccept {
		return nil
	}
	conn, err := nftables.New(nftables.WithNetNSFd(s.in.FD()))
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	if counts, err := s.in.CountRules(h.table); err != nil || counts[h.from] > 0 {
		return err
	}
	if len(chains) == 1 {
		conn.DelTable(chains[at].Table)
	} else {
		conn.DelChain(chains[at])
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove chain %s of table %s: %w", h.from, h.table, err)
	}
	return nil
}
