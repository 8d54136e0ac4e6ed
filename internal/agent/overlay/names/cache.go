package names

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"
	"github.com/miekg/dns"
)

// Bounds of what is remembered of the host's resolvers' answers. Typical answers are 100 to 300 bytes,
// so a full cache is about half a megabyte, and 4 at the worst.
const (
	maxKept     = 2000
	maxKeptSize = 2048

	longestKept   = time.Hour       // of what there is
	longestKeptNo = 5 * time.Minute // of what there is not (RFC 2308, 5)
	failureKept   = time.Second     // so that a failure is not asked for in a loop (RFC 9520)
)

// kept is an answer as it came, and how long it is good for.
type kept struct {
	wire    []byte
	since   time.Time
	expires time.Time
}

func keep(m *dns.Msg, now time.Time) (kept, error) {
	m.Compress = true
	wire, err := m.Pack()
	if err != nil {
		return kept{}, fmt.Errorf("write down a resolver's answer: %w", err)
	}
	return kept{wire, now, now.Add(lifetime(m))}, nil
}

// message returns the answer with what is left of its records' times to live.
func (k kept) message(now time.Time) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(k.wire); err != nil {
		return nil, fmt.Errorf("read a resolver's answer: %w", err)
	}
	age := uint32(max(0, now.Sub(k.since)) / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT { // whose field means other things
				h.Ttl -= min(h.Ttl, age)
			}
		}
	}
	return m, nil
}

// lifetime is how long an answer may be remembered.
func lifetime(m *dns.Msg) time.Duration {
	switch {
	case m.Truncated:
		return 0
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return failureKept
	}
	longest, no := longestKept, m.Rcode == dns.RcodeNameError || len(m.Answer) == 0
	if no {
		longest = 0 // unless its SOA says how long
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				longest = min(seconds(soa.Minttl), longestKeptNo)
			}
		}
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			longest = min(longest, seconds(rr.Header().Ttl))
		}
	}
	return longest
}

// seconds reads a time to live; with the highest bit set it is none (RFC 2181, 8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// cache remembers the answers that were asked for last.
type cache struct {
	mu      sync.Mutex
	entries *simplelru.LRU
}

func newCache() *cache {
	entries, err := simplelru.NewLRU(maxKept, nil)
	if err != nil {
		panic(err) // a size below one
	}
	return &cache{entries: entries}
}

func (c *cache) get(q question, now time.Time) (kept, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.entries.Get(q)
	if !ok {
		return kept{}, false
	}
	k := v.(kept)
	if !now.Before(k.expires) {
		c.entries.Remove(q)
		return kept{}, false
	}
	return k, true
}

func (c *cache) put(q question, k kept) {
	if len(k.wire) > maxKeptSize || !k.since.Before(k.expires) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Add(q, k)
}
