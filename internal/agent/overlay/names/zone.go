package names

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// ttl of the cluster's names. They are right within 100 ms of a change, here, for whoever asks: to
// ask costs 30 µs and reaches no other machine, so a cache between a program and this server could
// only be wrong. It is also how long "there is no such name" may be remembered (RFC 2308).
const ttl = 0

const (
	apex       = Domain + "."
	suffix     = "." + apex
	nameServer = "ns.dns" // of the zone: this server; a service may well be called ns
)

// zone answers the cluster's names.
type zone struct {
	directory Directory
	server    netip.Addr
	ranges    []netip.Prefix
}

// answer puts the answer to q into m, unless the name is not the cluster's.
func (z *zone) answer(m *dns.Msg, q dns.Question, asker netip.Addr) bool {
	name := strings.ToLower(q.Name) // of 0x20's capitals only the question's copy keeps (RFC 4343)
	var (
		f      found
		exists bool
		owner  string // of the SOA that a "no" comes with
	)
	if relative, ok := strings.CutSuffix(name, suffix); ok || name == apex {
		if name == apex {
			relative = ""
		}
		f, exists = z.find(relative, asker, true)
		owner = apex
	} else if cut, ok := reverseZone(name, z.ranges); ok {
		f, exists = z.findReverse(name, cut, asker)
		owner = cut
	} else {
		// Not qualified. It may also be a name of the host's, which its resolvers know.
		if f, exists = z.find(strings.TrimSuffix(name, "."), asker, false); !exists {
			return false
		}
		owner = q.Name // warren.internal is not above it
	}

	m.Authoritative = true
	if exists {
		f.records(m, q)
	} else {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(owner)}
	}
	return true
}

// found is what a name stands for; one that only has others below it stands for nothing.
type found struct {
	zone  string // where the name is the top of one
	hosts []host
	ports []uint16 // where the name asks for a port of these hosts
	name  string   // where the name is an address
}

type host struct {
	name string // relative to the domain
	addr netip.Addr
}

// find looks a name up, relative to the domain. Of names that are not qualified it takes those that
// are services' by their whole name, or are made so that hardly any name elsewhere is like them.
func (z *zone) find(name string, asker netip.Addr, qualified bool) (found, bool) {
	if name == "" {
		return found{zone: apex}, qualified
	}
	if strings.Contains(name, `\`) { // an escape: no service is called so
		return found{}, false
	}
	port, rest, isPort := strings.Cut(name, ".")
	switch {
	case !isPort || name[0] != '_':
		_, hosts, ok := z.hosts(name, asker, qualified)
		if !ok && qualified {
			return z.inner(name)
		}
		return found{hosts: hosts}, ok
	case port == "_tcp" || port == "_udp": // has ports below it
		_, _, ok := z.hosts(rest, asker, qualified)
		return found{}, ok
	}
	protocol, rest, _ := strings.Cut(rest, ".")
	if rest == "" || (protocol != "_tcp" && protocol != "_udp") {
		return found{}, false
	}
	service, hosts, ok := z.hosts(rest, asker, qualified)
	if !ok {
		return found{}, false
	}
	ports := service.targets(port[1:], protocol[1:])
	return found{hosts: hosts, ports: ports}, len(ports) > 0
}

// inner finds what is no service's.
func (z *zone) inner(name string) (found, bool) {
	switch {
	case name == nameServer:
		return found{hosts: []host{{nameServer, z.server}}}, true
	case strings.HasSuffix(nameServer, "."+name), isNumber(name):
		// The name server is below it, or are tasks: a "no" would be one for them too (RFC 8020).
		return found{}, true
	}
	return found{}, false
}

// hosts finds a service, its tasks, or one of them.
func (z *zone) hosts(name string, asker netip.Addr, qualified bool) (Service, []host, bool) {
	if s, ok := z.directory.Service(name, asker); ok {
		if s.VIP.IsValid() {
			return s, []host{{s.Name, s.VIP}}, true
		}
		return s, s.tasks(""), true
	}
	if of, ok := strings.CutPrefix(name, "tasks."); ok {
		if s, ok := z.directory.Service(of, asker); ok {
			return s, s.tasks(""), true
		}
	}
	// One task, either way around. Names of services and of nodes may have dots.
	const mostDots = 8
	for i, dots := 0, 0; i < len(name) && dots < mostDots; i++ {
		if name[i] != '.' {
			continue
		}
		dots++
		left, right := name[:i], name[i+1:]
		for _, try := range [2]struct{ service, task string }{{left, right}, {right, left}} {
			if try.task == "" || (!qualified && !isNumber(try.task)) { // www.dev may be a page
				continue
			}
			if s, ok := z.directory.Service(try.service, asker); ok {
				if hosts := s.tasks(try.task); len(hosts) > 0 {
					return s, hosts, true
				}
			}
		}
	}
	return Service{}, nil, false
}

// tasks returns the service's tasks, or those that are called so within it.
func (s Service) tasks(called string) []host {
	hosts := make([]host, 0, len(s.Tasks))
	for _, t := range s.Tasks {
		if called == "" || strings.EqualFold(strings.TrimPrefix(t.Name, s.Name+"."), called) {
			hosts = append(hosts, host{t.Name, t.Addr})
		}
	}
	return hosts
}

// targets returns the ports that are called so, or have that number, each once: it may be published several times.
func (s Service) targets(port, protocol string) []uint16 {
	var targets []uint16
	for _, p := range s.Ports {
		called := p.Name != "" && strings.EqualFold(p.Name, port) || strconv.Itoa(int(p.Target)) == port
		if p.Protocol == protocol && called && !slices.Contains(targets, p.Target) {
			targets = append(targets, p.Target)
		}
	}
	return targets
}

// records writes into m what there is of the type that is asked for, in random order: some
// programs only ever take the first.
func (f found) records(m *dns.Msg, q dns.Question) {
	switch q.Qtype {
	case dns.TypeANY:
		m.Answer = []dns.RR{minimal(q.Name)}
	case dns.TypeA, dns.TypeAAAA:
		if f.ports != nil { // _http._tcp.web is no host
			return
		}
		for _, h := range f.hosts {
			if rr := address(q.Name, h.addr); rr != nil && rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	case dns.TypeSRV:
		for _, port := range f.ports {
			for _, h := range f.hosts {
				m.Answer = append(m.Answer, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV), Weight: 1, Port: port, Target: qualify(h.name)})
			}
		}
		if len(f.ports) > 0 {
			for _, h := range f.hosts {
				if rr := address(qualify(h.name), h.addr); rr != nil {
					m.Extra = append(m.Extra, rr)
				}
			}
		}
	case dns.TypePTR:
		if f.name != "" {
			m.Answer = []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: qualify(f.name)}}
		}
	case dns.TypeSOA:
		if f.zone != "" {
			m.Answer = []dns.RR{soa(q.Name)}
		}
	case dns.TypeNS:
		if f.zone != "" {
			m.Answer = []dns.RR{&dns.NS{Hdr: header(q.Name, dns.TypeNS), Ns: qualify(nameServer)}}
		}
	}
	rand.Shuffle(len(m.Answer), func(i, j int) { m.Answer[i], m.Answer[j] = m.Answer[j], m.Answer[i] })
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

func address(name string, a netip.Addr) dns.RR {
	switch a = a.Unmap(); {
	case a.Is4():
		return &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()}
	case a.Is6():
		return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
	}
	return nil
}

// soa describes a zone. Nobody transfers it, so the serial number and the first three intervals say nothing.
func soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA), Ns: qualify(nameServer), Mbox: "hostmaster." + apex,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

// qualify adds the domain where it is missing.
func qualify(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == Domain || strings.HasSuffix(name, "."+Domain) {
		return name + "."
	}
	return name + suffix
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}
