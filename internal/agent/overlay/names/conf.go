package names

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of a search list: six domains in 256 characters is what resolvers of containers' images can
// be relied on to read (glibc before 2.26; musl drops a longer list whole).
const (
	maxSearch       = 6
	maxSearchLength = 256
)

// hostFile names the host's resolvers, unless another is given.
const hostFile = "/etc/resolv.conf"

// ContainerConf returns what a container finds in its /etc/resolv.conf: this node's server, and the
// search domains that the host's file has now, which may be missing. The file is mounted and keeps
// its content: a new one in its place would not be seen inside.
//
// With ndots:1 one query does for every kind of name (seen with glibc 2.36, musl 1.2.3 and Go). web has no dot and
// is tried with the search domains, of which the cluster's is the first; tasks.web, web.warren.internal
// and names of the Internet have one and are tried as they are. ndots:0 would do for web too, but
// the host's own short names would be sent out without a domain, and musl would never search for them.
// The host's options are about the host's resolvers and stay there.
func ContainerConf(node netip.Addr, resolvConf string) ([]byte, error) {
	host, err := readConf(cmp.Or(resolvConf, hostFile))
	if err != nil {
		return nil, err
	}
	search, length := []string{Domain}, len(Domain)
	for _, domain := range host.Search {
		domain = strings.TrimSuffix(domain, ".")
		_, isName := dns.IsDomainName(domain)
		fits := len(search) < maxSearch && length+1+len(domain) < maxSearchLength
		if domain == "" || !isName || !fits || strings.EqualFold(domain, Domain) {
			continue
		}
		search = append(search, domain)
		length += 1 + len(domain)
	}
	return fmt.Appendf(nil, "# Written by warren-agent.\nnameserver %s\nsearch %s\noptions ndots:1\n", node, strings.Join(search, " ")), nil
}

// readConf reads a resolv.conf; one that is missing says nothing.
func readConf(path string) (*dns.ClientConfig, error) {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the host's resolvers: %w", err)
	}
	conf, err := dns.ClientConfigFromReader(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers: %s: %w", path, err)
	}
	return conf, nil
}

// hostConf knows the host's resolvers. It looks at the file whenever it is asked, which costs 4 µs
// where a question to a resolver costs a hundred times that, and reads it when it is another.
type hostConf struct {
	path string
	own  netip.Addr
	log  *slog.Logger

	mu    sync.Mutex
	file  os.FileInfo // nil: missing
	known *upstreams
}

func newHostConf(path string, own netip.Addr, log *slog.Logger) *hostConf {
	return &hostConf{path: path, own: own, log: log}
}

// current returns the host's resolvers. After a change it is a new value, with an empty cache: other
// resolvers may say otherwise.
func (h *hostConf) current() *upstreams {
	h.mu.Lock()
	defer h.mu.Unlock()
	file, err := os.Stat(h.path)
	if err != nil {
		file = nil
	}
	if h.known != nil && sameFile(h.file, file) {
		return h.known
	}
	h.file = file
	conf, err := readConf(h.path)
	if err != nil {
		h.log.Warn("containers' names are not forwarded", "error", err)
		conf = &dns.ClientConfig{}
	}
	servers := resolvers(conf, h.own)
	h.log.Info("names that are not the cluster's go to the host's resolvers", "resolvers", servers, "file", h.path)
	h.known = &upstreams{servers: servers, log: h.log, cache: newCache(), quiet: map[netip.Addr]*silence{}}
	return h.known
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func resolvers(conf *dns.ClientConfig, own netip.Addr) []netip.Addr {
	var all []netip.Addr
	for _, s := range conf.Servers {
		a, err := netip.ParseAddr(s)
		if err == nil && a != own && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// probeEvery is how often a silent resolver is asked whether it is there.
const probeEvery = 10 * time.Second

// upstreams are the host's resolvers, with what they said.
type upstreams struct {
	servers []netip.Addr
	log     *slog.Logger
	cache   *cache

	mu    sync.Mutex
	quiet map[netip.Addr]*silence // those that were asked and did not answer, until they do
}

// silence is what is known of a resolver that does not answer.
type silence struct {
	told bool      // to the log: it is not merely late
	due  time.Time // when it is to be probed; zero while it is
}

// order returns the resolvers as they are to be asked: as the host's file has them, but silent ones last, which it also returns
// by themselves.
func (u *upstreams) order() (ordered, silent []netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, server := range u.servers {
		if u.quiet[server] == nil {
			ordered = append(ordered, server)
		} else {
			silent = append(silent, server)
		}
	}
	return append(ordered, silent...), silent
}

// due returns the silent resolvers that it is time to probe, which the caller does. A question that is asked of others first
// would not show that they are back.
func (u *upstreams) due(now time.Time) []netip.Addr {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.servers) < 2 {
		return nil
	}
	var due []netip.Addr
	for server, s := range u.quiet {
		if !s.due.IsZero() && !now.Before(s.due) {
			s.due = time.Time{}
			due = append(due, server)
		}
	}
	return due
}

// late notes that a resolver has not answered yet, and lets others go before it. It returns true if the caller is to probe it.
func (u *upstreams) late(server netip.Addr) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.quiet[server] != nil {
		return false
	}
	u.quiet[server] = &silence{}
	return true
}

func (u *upstreams) silent(server netip.Addr, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.quiet[server]
	if s == nil {
		s = &silence{}
		u.quiet[server] = s
	}
	if !s.told {
		u.log.Warn("a resolver of the host does not answer", "resolver", server)
	}
	s.told, s.due = true, now.Add(probeEvery)
}

func (u *upstreams) answers(server netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.quiet[server]; s != nil && s.told {
		u.log.Info("a resolver of the host answers again", "resolver", server)
	}
	delete(u.quiet, server)
}
