package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables"
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

// base keeps the few chains in the tables that we share with other programs. Where Docker, say, has set
// FORWARD's policy to DROP, only a rule in that same table can accept.
type base struct {
	node    namespaceNode
	program string
	tables  *iptables.IPTables
	nft     bool // iptables-nft, whose tables are nftables' own
	filters bool // WARREN-FORWARD decides who may speak to whom; else it accepts, and nftables decide

	made    map[hook]bool // the built-in chains that are there because of us
	ordered map[hook]bool // the jumps that this process has seen in their place

	mu       sync.Mutex
	children []uint32 // the latest of the programs we started
}

// newBase returns an error if there is no iptables here.
func newBase(ctx context.Context, node namespaceNode, program string) (*base, error) {
	tables, err := iptables.New(iptables.Path(program), iptables.Timeout(10))
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", program, err)
	}
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", program, err)
	}
	return &base{
		node: node, program: program, tables: tables, nft: bytes.Contains(version, []byte("nf_tables")),
		made: map[hook]bool{}, ordered: map[hook]bool{},
	}, nil
}

func (b *base) hooks() []hook {
	if b.filters {
		return append([]hook{forwardHook}, moreHooks...)
	}
	return []hook{forwardHook}
}

// ensure makes what is missing. It does nothing where there is no iptables: then nobody can have set FORWARD's
// policy with it.
func (b *base) ensure(context.Context) error {
	if b == nil {
		return nil
	}
	return b.node.run(func() error {
		if err := b.ensureChain(userChain); err != nil {
			return err
		}
		if !b.filters {
			if err := b.ensureForward(); err != nil {
				return err
			}
		}
		return b.ensureHooks()
	})
}

func (b *base) ensureChain(name string) error {
	exists, err := b.tables.ChainExists("filter", name)
	if err == nil && !exists {
		err = b.tables.NewChain("filter", name)
	}
	if err != nil {
		return fmt.Errorf("make iptables chain %s: %w", name, err)
	}
	return nil
}

// forwardRules are those of WARREN-FORWARD where nftables decide.
func (b *base) forwardRules() [][]string {
	return [][]string{
		{"-j", userChain},
		{"-i", b.node.Bridge, "-j", "ACCEPT"},
		{"-o", b.node.Bridge, "-j", "ACCEPT"},
		{"-i", b.node.Device, "-j", "ACCEPT"},
		{"-o", b.node.Device, "-j", "ACCEPT"},
	}
}

// ensureForward brings WARREN-FORWARD up to date with no moment in which it lacks a rule.
func (b *base) ensureForward() error {
	if err := b.ensureChain(forwardChain); err != nil {
		return err
	}
	want := b.forwardRules()
	have, err := b.tables.List("filter", forwardChain)
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
		if err := b.tables.Insert("filter", forwardChain, i+1, rule...); err != nil {
			return fmt.Errorf("fill iptables chain %s: %w", forwardChain, err)
		}
	}
	for range have {
		if err := b.tables.DeleteById("filter", forwardChain, len(want)+1); err != nil {
			return fmt.Errorf("tidy iptables chain %s: %w", forwardChain, err)
		}
	}
	return nil
}

// ensureHooks sees to the jumps. Once in the life of this process each is moved to the first place; later it
// only has to be there, or two programs that both want to be first would never end.
func (b *base) ensureHooks() error {
	for _, h := range b.hooks() {
		at, err := b.find(h)
		if err != nil {
			return err
		}
		if len(at) == 0 && b.nft && !b.made[h] {
			if b.made[h], err = b.missing(h); err != nil {
				return err
			}
		}
		if len(at) == 0 || at[0] != 1 && !b.ordered[h] {
			comment := hookComment
			if b.made[h] {
				comment = madeComment
			}
			if err := b.tables.Insert(h.table, h.from, 1, "-m", "comment", "--comment", comment, "-j", h.to); err != nil {
				return fmt.Errorf("call iptables chain %s from %s: %w", h.to, h.from, err)
			}
			if err := b.unhook(h, at, 1); err != nil {
				return err
			}
		}
		b.ordered[h] = true
	}
	return nil
}

// intact tells whether the jumps stand, and what they lead to if that is base's.
func (b *base) intact(context.Context) (bool, error) {
	if b == nil {
		return true, nil
	}
	whole := true
	err := b.node.run(func() error {
		for _, h := range b.hooks() {
			stands, err := b.stands(h.table)
			if err != nil {
				return err
			}
			if !stands {
				whole = false
				return nil
			}
			at, err := b.find(h)
			if err != nil {
				return err
			}
			whole = whole && len(at) > 0
		}
		exists, err := b.tables.ChainExists("filter", userChain)
		if err != nil {
			return err
		}
		whole = whole && exists
		if b.filters || !whole {
			return nil
		}
		have, err := b.tables.List("filter", forwardChain)
		whole = len(have) == 1+len(b.forwardRules())
		return err
	})
	return whole, err
}

// find returns the places, counted from 1, of our jumps in a built-in chain, and takes note if they say that
// the chain is of our making.
func (b *base) find(h hook) ([]int, error) {
	list, err := b.tables.List(h.table, h.from)
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
				b.made[h] = true
			}
		}
	}
	return at, nil
}

// unhook removes jumps from their places, which have moved down by so many.
func (b *base) unhook(h hook, at []int, moved int) error {
	for _, place := range slices.Backward(at) {
		if err := b.tables.DeleteById(h.table, h.from, place+moved); err != nil {
			return fmt.Errorf("stop calling iptables chain %s from %s: %w", h.to, h.from, err)
		}
	}
	return nil
}

// missing tells whether a built-in chain of iptables-nft does not stand yet.
func (b *base) missing(h hook) (bool, error) {
	chains, err := b.nftChains(h.table)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == h.from }), nil
}

// nftChains lists the chains of a table of iptables-nft.
func (b *base) nftChains(table string) ([]*nftables.Chain, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(b.node.fd()))
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
func (b *base) stands(table string) (bool, error) {
	if b.nft {
		chains, err := b.nftChains(table)
		return len(chains) > 0, err
	}
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Fields(string(names)), table), err
}

// clear removes every jump and chain of ours; with keep, those only that the backend in use does not want.
func (b *base) clear(ctx context.Context, keep bool) error {
	if b == nil {
		return nil
	}
	kept := map[hook]bool{}
	if keep {
		for _, h := range b.hooks() {
			kept[h] = true
		}
	}
	return b.node.run(func() error {
		for _, table := range []string{"filter", "nat", "raw"} {
			if err := b.clearTable(ctx, table, kept); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *base) clearTable(ctx context.Context, table string, kept map[hook]bool) error {
	if stands, err := b.stands(table); err != nil || !stands {
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
		at, err := b.find(h)
		if err != nil {
			return err
		}
		if err := b.unhook(h, at, 0); err != nil {
			return err
		}
		gone = append(gone, h)
	}
	chains, err := b.ourChains(table)
	if err != nil {
		return err
	}
	chains = slices.DeleteFunc(chains, func(name string) bool { return stays[name] })
	if len(chains) > 0 {
		if err := b.restore(ctx, ruleset{}.replacing(table, chains)); err != nil {
			return err
		}
	}
	for _, h := range gone {
		if err := b.unmake(h); err != nil {
			return err
		}
		delete(b.ordered, h)
	}
	return nil
}

// ourChains lists our chains in a table.
func (b *base) ourChains(table string) ([]string, error) {
	chains, err := b.tables.ListChains(table)
	if err != nil {
		return nil, fmt.Errorf("list chains of iptables table %s: %w", table, err)
	}
	return slices.DeleteFunc(chains, func(name string) bool { return !strings.HasPrefix(name, prefix) }), nil
}

// unmake takes away a built-in chain that stands because of us and that nobody has come to use since, and the
// table if it was its last.
func (b *base) unmake(h hook) error {
	if !b.made[h] {
		return nil
	}
	delete(b.made, h)
	chains, err := b.nftChains(h.table)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Name == h.from })
	if at < 0 || chains[at].Policy != nil && *chains[at].Policy != nftables.ChainPolicyAccept {
		return nil
	}
	conn, err := nftables.New(nftables.WithNetNSFd(b.node.fd()))
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	if counts, err := countRules(b.node.namespace, h.table); err != nil || counts[h.from] > 0 {
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

// restore puts several chains in force as one, table by table, which go-iptables has no call for.
func (b *base) restore(ctx context.Context, input []byte) error {
	return b.node.run(func() error {
		var stderr bytes.Buffer
		restore := exec.CommandContext(ctx, b.program+"-restore", "--noflush", "--wait", "10")
		restore.Stdin, restore.Stderr = bytes.NewReader(input), &stderr
		err := restore.Start()
		if err == nil {
			b.started(uint32(restore.Process.Pid))
			err = restore.Wait()
		}
		if err != nil {
			return fmt.Errorf("run %s: %w: %s", restore.Path, err, strings.TrimSpace(stderr.String()))
		}
		return nil
	})
}

// count counts the rules of each of our chains in a table.
func (b *base) count(ctx context.Context, table string) (map[string]int, error) {
	counts := map[string]int{}
	err := b.node.run(func() error {
		if stands, err := b.stands(table); err != nil || !stands {
			return err
		}
		saved, err := exec.CommandContext(ctx, b.program+"-save", "-t", table).Output()
		if err != nil {
			return fmt.Errorf("run %s-save: %w", b.program, err)
		}
		for line := range strings.Lines(string(saved)) {
			fields := strings.Fields(line)
			switch {
			case len(fields) > 1 && strings.HasPrefix(fields[0], ":"+prefix):
				counts[fields[0][1:]] += 0
			case len(fields) > 1 && fields[0] == "-A" && strings.HasPrefix(fields[1], prefix):
				counts[fields[1]]++
			}
		}
		return nil
	})
	return counts, err
}

func (b *base) started(pid uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.children = append(b.children, pid)
	if len(b.children) > 64 {
		b.children = slices.Clone(b.children[32:])
	}
}

// ours tells whether a change was made by a program we started; iptables-nft speaks to the kernel by a socket
// with its process's number.
func (b *base) ours(socket uint32) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.children, socket)
}

// ruleset is the rules of chains by table and chain.
type ruleset map[string]map[string][]string

// replacing writes a table's chains anew and removes those that are gone.
func (r ruleset) replacing(table string, gone []string) []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "*%s\n", table)
	names := slices.Sorted(maps.Keys(r[table]))
	for _, name := range append(slices.Clone(names), gone...) {
		fmt.Fprintf(&text, ":%s - [0:0]\n", name)
	}
	for _, name := range names {
		for _, rule := range r[table][name] {
			fmt.Fprintf(&text, "-A %s %s\n", name, rule)
		}
	}
	for _, name := range gone {
		fmt.Fprintf(&text, "-X %s\n", name)
	}
	text.WriteString("COMMIT\n")
	return text.Bytes()
}
