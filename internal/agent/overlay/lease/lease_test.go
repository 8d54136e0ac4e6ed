package lease

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

var subnet = netip.MustParsePrefix("10.208.3.0/24")

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// memory is a record in memory, which keeps what a disk would.
type memory struct {
	leases map[string]netip.Addr
	err    error
}

func (m *memory) Leases() (map[string]netip.Addr, error) { return maps.Clone(m.leases), m.err }
func (m *memory) SaveLease(task string, a netip.Addr)    { m.leases[task] = a }
func (m *memory) DropLease(task string)                  { delete(m.leases, task) }

func open(t *testing.T, m *memory, attached map[string]netip.Addr) *Leases {
	t.Helper()
	l, err := Open(subnet, m, attached, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestAddressesAreNeverSharedNeverOutsideAndTheLongestFreeComesFirst compares an allocator with the plainest one.
func TestAddressesAreNeverSharedNeverOutsideAndTheLongestFreeComesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(26, 30).Draw(t, "bits")
		subnet := netip.PrefixFrom(addr("10.208.3.0"), bits)
		a, err := NewAllocator(subnet)
		if err != nil {
			t.Fatal(err)
		}
		usable := 1<<(32-bits) - 3
		held := map[string]netip.Addr{}
		freedAt := map[netip.Addr]int{} // missing: never given
		task := rapid.Custom(func(t *rapid.T) string { return strconv.Itoa(rapid.IntRange(0, 70).Draw(t, "task")) })
		now := 0
		t.Repeat(map[string]func(*rapid.T){
			"give": func(t *rapid.T) {
				name := task.Draw(t, "name")
				got, err := a.Give(name)
				if had, has := held[name]; has {
					if err != nil || got != had {
						t.Fatalf("%s has %s and got %s, %v", name, had, got, err)
					}
					return
				}
				if len(held) == usable {
					if !errors.Is(err, ErrExhausted) {
						t.Fatalf("got %s, %v with all given", got, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				for other, its := range held {
					if its == got {
						t.Fatalf("%s and %s both have %s", name, other, got)
					}
				}
				last := got.As4()[3]
				if !subnet.Contains(got) || last < 2 || int(last) == 1<<(32-bits)-1 {
					t.Fatalf("%s is no task's in %s", got, subnet)
				}
				for at, when := range freedAt {
					if _, inUse := taskOf(held, at); !inUse && when < freedAt[got] {
						t.Fatalf("%s was freed before %s", at, got)
					}
				}
				if _, again := freedAt[got]; again && len(freedAt)+len(neverFreed(held, freedAt)) < usable {
					t.Fatalf("%s was given again before others were given once", got)
				}
				held[name] = got
			},
			"free": func(t *rapid.T) {
				name := task.Draw(t, "name")
				got, had := a.Free(name)
				if its, has := held[name]; has != had || had && its != got {
					t.Fatalf("freed %s, %v; %s has %s", got, had, name, its)
				}
				if had {
					now++
					freedAt[got] = now
					delete(held, name)
				}
			},
			"": func(t *rapid.T) {
				if len(a.free)+len(held) != usable || len(a.byTask) != len(held) || len(a.byAddr) != len(held) {
					t.Fatalf("%d free, %d given, %d in all", len(a.free), len(held), usable)
				}
			},
		})
	})
}

func taskOf(held map[string]netip.Addr, at netip.Addr) (string, bool) {
	for task, a := range held {
		if a == at {
			return task, true
		}
	}
	return "", false
}

// neverFreed are the addresses in use that were not given before.
func neverFreed(held map[string]netip.Addr, freedAt map[netip.Addr]int) []netip.Addr {
	var found []netip.Addr
	for _, a := range held {
		if _, freed := freedAt[a]; !freed {
			found = append(found, a)
		}
	}
	return found
}

func TestAFullSubnetSaysSoAndWhatToDo(t *testing.T) {
	l := open(t, &memory{leases: map[string]netip.Addr{}}, nil)
	for i := range 253 {
		if _, err := l.Lease(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.Lease("more")
	want := "no address left in 10.208.3.0/24: 253 tasks have one; have fewer tasks on this node or add nodes " +
		"(how large the nodes' subnets are is said once, by cluster init --node-prefix)"
	if !errors.Is(err, ErrExhausted) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	l.Release("7")
	if got, err := l.Lease("more"); err != nil || got != addr("10.208.3.9") {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestTheNextAgentKnowsTheLeasesAndGoesOnAboveThem(t *testing.T) {
	m := &memory{leases: map[string]netip.Addr{}}
	l := open(t, m, nil)
	for _, task := range []string{"a", "b", "c"} {
		if _, err := l.Lease(task); err != nil {
			t.Fatal(err)
		}
	}
	l.Release("a")
	l = open(t, m, map[string]netip.Addr{"b": addr("10.208.3.3"), "half-made": {}})
	want := map[string]netip.Addr{"b": addr("10.208.3.3"), "c": addr("10.208.3.4")}
	if got := l.All(); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got, err := l.Lease("d"); err != nil || got != addr("10.208.3.5") {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestTheAddressATaskHasCountsMoreThanTheRecord(t *testing.T) {
	m := &memory{leases: map[string]netip.Addr{
		"lost": addr("10.208.3.9"), "moved": addr("10.208.3.7"), "bad": addr("10.208.3.1"),
	}}
	attached := map[string]netip.Addr{
		"moved": addr("10.208.3.8"), "unrecorded": addr("10.208.3.9"), "twin": addr("10.208.3.9"),
	}
	l := open(t, m, attached)
	want := map[string]netip.Addr{"moved": addr("10.208.3.8"), "twin": addr("10.208.3.9")}
	if got := l.All(); !maps.Equal(got, want) {
		t.Errorf("leases %v", got)
	}
	if !maps.Equal(m.leases, want) {
		t.Errorf("recorded %v", m.leases)
	}
}

func TestANodeThatMovesKeepsItsTasksAddressesUntilTheyAreReleased(t *testing.T) {
	m := &memory{leases: map[string]netip.Addr{}}
	l := open(t, m, nil)
	old, err := l.Lease("old")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Move(netip.MustParsePrefix("10.209.0.0/30")); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.Lease("old"); got != old {
		t.Errorf("%s became %s", old, got)
	}
	if got, err := l.Lease("new"); err != nil || got != addr("10.209.0.2") {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := l.Lease("more"); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "1 tasks") {
		t.Errorf("got %v", err)
	}
	l.Release("old")
	if _, err := l.Lease("more"); !errors.Is(err, ErrExhausted) {
		t.Errorf("an address of the old subnet came back: %v", err)
	}
	if err := l.Move(subnet); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Lease("more"); err != nil || got != old {
		t.Errorf("back in the old subnet: got %s, %v", got, err)
	}
}

func TestLeasesGivenAtOnceDiffer(t *testing.T) {
	l := open(t, &memory{leases: map[string]netip.Addr{}}, nil)
	var running sync.WaitGroup
	for i := range 100 {
		running.Go(func() {
			if _, err := l.Lease(strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	given := slices.SortedFunc(maps.Values(l.All()), netip.Addr.Compare)
	if got := slices.Compact(given); len(got) != 100 {
		t.Errorf("%d addresses for 100 tasks", len(got))
	}
}

func TestBadSubnetsAndARecordThatCannotBeReadAreRefused(t *testing.T) {
	for _, bad := range []netip.Prefix{
		{}, netip.MustParsePrefix("10.208.3.1/24"), netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("10.208.3.0/31"), netip.MustParsePrefix("fd00::/120"),
	} {
		if _, err := NewAllocator(bad); err == nil || !strings.HasPrefix(err.Error(), "subnet ") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	if _, err := Open(subnet, &memory{err: errors.New("disk")}, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no word of it")
	}
}
