package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay/rules/netfilter"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

const (
	// atOnce is how many elements go into one message, whose length is 16 bits.
	atOnce = 800
	// inFlight is how many elements are loaded in one transaction when all is built anew: enough to be quick,
	// few enough for the memory they take on the way.
	inFlight = 8 * atOnce
	// socketBuffer holds the answers to the largest transaction.
	socketBuffer = 8 << 20
)

// tables are the names of our table: while one stands, the next is built under the other.
var tables = [2]string{"warren-a", "warren-b"}

// HasTable tells whether a table is named as ours are, in force or not.
func HasTable(name string) bool { return slices.Contains(tables[:], name) }

// Backend puts facts into a table of its own over netlink. It is for one caller at a time, but for Ours and Owns.
type Backend struct {
	node traffic.Node
	in   netfilter.Namespace

	conn   *nftables.Conn
	socket atomic.Uint32 // by which the kernel tells our changes from others'

	table  *nftables.Table        // the one in force; nil before the first
	named  atomic.Pointer[string] // its name, for those who ask at any time
	layout *layout
	sets   map[string]*nftables.Set
	lastID uint32 // of a set within a transaction
}

// New is the backend of a node whose rules are in a namespace. It opens nothing, and asks nothing of the kernel.
func New(node traffic.Node, in netfilter.Namespace) *Backend {
	return &Backend{node: node, in: in}
}

// connect opens the connection if there is none.
func (b *Backend) connect() error {
	if b.conn != nil {
		return nil
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(b.in.FD()), nftables.WithSockOptions(
		func(c *netlink.Conn) error {
			if err := errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer)); err != nil {
				return err
			}
			id, err := portID(c)
			b.socket.Store(id)
			return err
		}))
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	b.conn = conn
	return nil
}

func (b *Backend) disconnect() {
	if b.conn != nil {
		_ = b.conn.CloseLasting()
		b.conn = nil
	}
}

// flush sends what was gathered as one transaction. After an error the connection is made anew, since
// answers may be left on it.
func (b *Backend) flush() error {
	if err := b.conn.Flush(); err != nil {
		b.disconnect()
		return err
	}
	return nil
}

// Probe tells whether this kernel's nftables can do what the rules need, by an error if not: it makes a table with one of each
// and takes it back in the same transaction.
func (b *Backend) Probe() error {
	if err := b.connect(); err != nil {
		return err
	}
	table := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "warren-probe"})
	networks := []string{"net-probe"}
	b.build(table, newLayout(), networks, []chain{{name: "from-probe", networks: networks}, {name: "to-probe", networks: networks}})
	b.hook(table)
	b.conn.DelTable(table)
	if err := b.flush(); err != nil {
		return fmt.Errorf("try nftables: %w", err)
	}
	return nil
}

// Replace makes all anew from facts and swaps it for what stands: no packet finds neither. After an error it has to be called
// again, and what stood may be in force still.
func (b *Backend) Replace(ctx context.Context, f *traffic.Facts) error {
	if err := b.connect(); err != nil {
		return err
	}
	stands, err := b.standing()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tables[0]}
	if len(stands) > 0 && stands[0].Table.Name == tables[0] {
		table.Name = tables[1]
	}

	l := newLayout()
	s := l.change(f.All())
	b.conn.AddTable(table) // what an earlier try has left of it
	b.conn.DelTable(table)
	b.conn.AddTable(table)
	sets := b.build(table, l, s.newSets, s.newChains)
	if err := b.flush(); err != nil {
		return fmt.Errorf("make nftables table %s: %w", table.Name, err)
	}
	for part := range slices.Chunk(s.add, inFlight) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.connect(); err != nil {
			return err
		}
		if err := elements(b.conn.SetAddElements, sets, part); err != nil {
			return err
		}
		if err := b.flush(); err != nil {
			return fmt.Errorf("fill nftables table %s: %w", table.Name, err)
		}
	}
	if err := b.swap(table, stands); err != nil {
		return fmt.Errorf("put nftables table %s in force: %w", table.Name, err)
	}
	b.table, b.layout, b.sets = table, l, sets
	b.named.Store(&table.Name)
	return nil
}

// standing is the chains that packets come to of the table in force, whoever made it; none if there is none. Who was killed
// within a swap has left NAT of the other table too, which is not in force.
func (b *Backend) standing() ([]*nftables.Chain, error) {
	chains, err := b.conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	hooked := map[string][]*nftables.Chain{}
	inForce := ""
	for _, c := range chains {
		if c.Hooknum == nil || !HasTable(c.Table.Name) {
			continue
		}
		hooked[c.Table.Name] = append(hooked[c.Table.Name], c)
		if inForce == "" || c.Type != nftables.ChainTypeNAT {
			inForce = c.Table.Name
		}
	}
	return hooked[inForce], nil
}

// swap puts a table in force in place of another. The other's NAT stays for one transaction more: a packet
// that has passed our chain when it was not in force yet would pass the other when it no longer is.
func (b *Backend) swap(table *nftables.Table, stands []*nftables.Chain) error {
	b.hook(table)
	for _, c := range stands {
		if c.Type != nftables.ChainTypeNAT {
			b.conn.DelChain(c)
		}
	}
	if err := b.flush(); err != nil || len(stands) == 0 {
		return err
	}
	if err := b.connect(); err != nil {
		return err
	}
	b.conn.DelTable(stands[0].Table)
	return b.flush()
}

// build gathers a table's sets and chains, but for those that packets come to.
func (b *Backend) build(table *nftables.Table, l *layout, networks []string, chains []chain) map[string]*nftables.Set {
	fixed := schemaOf(b.node, b.in.Bridged())
	sets := map[string]*nftables.Set{}
	for _, set := range fixed.sets {
		b.addSet(table, set)
		sets[set.Name] = set
	}
	for _, network := range networks {
		sets[network] = b.addSet(table, &nftables.Set{Name: network, KeyType: nftables.TypeIPAddr})
	}
	for _, c := range fixed.inner {
		b.conn.AddChain(&nftables.Chain{Name: c.name, Table: table})
	}
	for _, c := range fixed.inner {
		b.addRules(table, c.name, c.rules)
	}
	for _, c := range chains {
		b.addChain(table, c)
	}
	for _, c := range l.slots {
		b.addChain(table, c)
	}
	return sets
}

// hook gathers the chains that packets come to.
func (b *Backend) hook(table *nftables.Table) {
	policy := nftables.ChainPolicyAccept
	for _, c := range schemaOf(b.node, false).hooked {
		b.conn.AddChain(&nftables.Chain{
			Name: c.name, Table: table, Type: c.kind, Hooknum: c.hook, Priority: &c.priority, Policy: &policy,
		})
		b.addRules(table, c.name, c.rules)
	}
}

// addSet numbers the set itself: the library's numbers are not for several callers at once.
func (b *Backend) addSet(table *nftables.Table, set *nftables.Set) *nftables.Set {
	b.lastID++
	set.Table, set.ID = table, b.lastID
	_ = b.conn.AddSet(set, nil) // fails for anonymous sets only
	return set
}

func (b *Backend) addChain(table *nftables.Table, c chain) {
	b.conn.AddChain(&nftables.Chain{Name: c.name, Table: table})
	b.addRules(table, c.name, rulesOf(c))
}

func (b *Backend) addRules(table *nftables.Table, chain string, list []rule) {
	for _, r := range list {
		b.conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: chain, Table: table}, Exprs: r})
	}
}

// Apply puts changed facts in force. After an error the table is not what the backend took it for, and has to be replaced.
func (b *Backend) Apply(_ context.Context, _ *traffic.Facts, d traffic.Delta) error {
	err := b.change(d)
	if err != nil {
		b.disconnect()
	}
	return err
}

// change makes a change in one transaction, but for chains that have to stand before.
func (b *Backend) change(d traffic.Delta) error {
	if err := b.connect(); err != nil {
		return err
	}
	s := b.layout.change(d)
	if len(s.ahead) > 0 {
		for _, c := range s.ahead {
			b.addChain(b.table, c)
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
	for _, network := range s.newSets {
		b.sets[network] = b.addSet(b.table, &nftables.Set{Name: network, KeyType: nftables.TypeIPAddr})
	}
	for _, c := range s.newChains {
		b.addChain(b.table, c)
	}
	if err := elements(b.conn.SetDeleteElements, b.sets, s.drop); err != nil {
		return err
	}
	if err := elements(b.conn.SetAddElements, b.sets, s.add); err != nil {
		return err
	}
	for _, name := range s.goneChains {
		b.conn.DelChain(&nftables.Chain{Name: name, Table: b.table})
	}
	for _, network := range s.goneSets {
		b.conn.DelSet(b.sets[network])
		delete(b.sets, network)
	}
	return b.flush()
}

// elements gathers elements by their sets, in messages that are not too long.
func elements(by func(*nftables.Set, []nftables.SetElement) error, sets map[string]*nftables.Set, list []element) error {
	of := map[string][]nftables.SetElement{}
	for _, e := range list {
		one := nftables.SetElement{Key: []byte(e.key), Val: []byte(e.value)}
		if e.chain != "" {
			kind := expr.VerdictGoto
			if e.set == vipsMap || e.set == portsMap {
				kind = expr.VerdictJump // to come back for a second look
			}
			one.VerdictData = &expr.Verdict{Kind: kind, Chain: e.chain}
		}
		of[e.set] = append(of[e.set], one)
	}
	for name, all := range of {
		for part := range slices.Chunk(all, atOnce) {
			if err := by(sets[name], part); err != nil {
				return fmt.Errorf("elements of nftables set %s: %w", name, err)
			}
		}
	}
	return nil
}

// Intact looks whether the table that we made stands with all its chains and their rules. It does not read
// the sets: who takes an element out of them is seen by whoever listens to the kernel.
func (b *Backend) Intact(context.Context) (bool, error) {
	if err := b.connect(); err != nil {
		return false, err
	}
	chains, err := b.conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		b.disconnect()
		return false, fmt.Errorf("list nftables chains: %w", err)
	}
	want := map[string]int{}
	fixed := schemaOf(b.node, b.in.Bridged())
	for _, c := range fixed.inner {
		want[c.name] = len(c.rules)
	}
	for _, c := range fixed.hooked {
		want[c.name] = len(c.rules)
	}
	for _, called := range []map[string]chain{b.layout.chains, b.layout.slots} {
		for name, c := range called {
			want[name] = len(rulesOf(c))
		}
	}
	have, err := b.in.CountRules(b.table.Name)
	if err != nil {
		return false, err
	}
	for _, c := range chains {
		if c.Table.Name != b.table.Name {
			continue
		}
		if n, ours := want[c.Name]; !ours || n != have[c.Name] {
			return false, nil
		}
		delete(want, c.Name)
	}
	return len(want) == 0, nil
}

// Ours tells whether the kernel's news from a socket, by its netlink port, are of this backend's own doing.
func (b *Backend) Ours(socket uint32) bool { return socket == b.socket.Load() }

// Owns tells whether a table is the one in force.
func (b *Backend) Owns(table string) bool {
	name := b.named.Load()
	return name != nil && *name == table
}

// Clear removes both our tables.
func (b *Backend) Clear(context.Context) error {
	if err := b.connect(); err != nil {
		return err
	}
	list, err := b.conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, table := range list {
		if HasTable(table.Name) {
			b.conn.DelTable(table)
		}
	}
	if err := b.flush(); err != nil {
		return fmt.Errorf("remove nftables tables: %w", err)
	}
	return nil
}

// Close lets go of the kernel and leaves the table in force.
func (b *Backend) Close() { b.disconnect() }

// portID is the number the kernel knows a netlink socket by.
func portID(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var id uint32
	var failed error
	err = raw.Control(func(fd uintptr) {
		addr, err := unix.Getsockname(int(fd))
		if netlinkAddr, ok := addr.(*unix.SockaddrNetlink); ok {
			id = netlinkAddr.Pid
		}
		failed = err
	})
	return id, errors.Join(err, failed)
}
