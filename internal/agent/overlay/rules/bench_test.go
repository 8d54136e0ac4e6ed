package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// crowd is a cluster of so many services of ten endpoints each, all in one network. The node's own three
// tasks are endpoints of none.
func crowd(n traffic.Node, services int) traffic.Set {
	var set traffic.Set
	for _, addr := range []string{aAddr, bAddr, cAddr} {
		set.Tasks = append(set.Tasks, taskOf(n, addr, "default"))
	}
	for i := range services {
		s := traffic.Service{ID: fmt.Sprint("crowd-", i), VIP: netip.AddrFrom4([4]byte{10, 224, byte(100 + i/250), byte(i % 250)})}
		for j := range 10 {
			k := 10*i + j
			addr := netip.AddrFrom4([4]byte{10, byte(209 + k/50000), byte(k / 250 % 200), byte(2 + k%250)})
			s.Endpoints = append(s.Endpoints, addr)
			set.Tasks = append(set.Tasks, traffic.Task{Addr: addr, Networks: []string{"default"}})
		}
		set.Services = append(set.Services, s)
	}
	return set
}

// BenchmarkChange changes one of many services of ten endpoints.
func BenchmarkChange(b *testing.B) {
	needsRoot(b)
	for _, v := range variants {
		for _, services := range []int{1, 5000} {
			b.Run(fmt.Sprintf("%s/of %d", v.name, services), func(b *testing.B) {
				w := newWorld(b, v)
				set := crowd(w.nodeIs, services)
				w.node.must(w.rules.Replace(b.Context(), set))
				s := set.Services[services/2]
				all, fewer, others := s.Endpoints, s.Endpoints[:9], append([]netip.Addr{netip.MustParseAddr(aAddr)}, s.Endpoints[:9]...)
				for name, endpoints := range map[string][2][]netip.Addr{"replacing an endpoint": {others, all}, "with one less and one more": {fewer, all}} {
					b.Run(name, func(b *testing.B) {
						for i := 0; b.Loop(); i++ {
							s.Endpoints = endpoints[i%2]
							w.node.must(w.rules.Apply(b.Context(), traffic.Change{Services: []traffic.Service{s}}))
						}
					})
				}
				b.Run("a remote task", func(b *testing.B) {
					for i := 0; b.Loop(); i++ {
						t := taskOf(w.nodeIs, "10.220.0.1", []string{"default", "other"}[i%2])
						w.node.must(w.rules.Apply(b.Context(), traffic.Change{Tasks: []traffic.Task{t}}))
					}
				})
			})
		}
	}
}

// BenchmarkReplace makes all anew at 5,000 services of ten endpoints.
func BenchmarkReplace(b *testing.B) {
	needsRoot(b)
	for _, v := range variants {
		b.Run(v.name, func(b *testing.B) {
			w := newWorld(b, v)
			set := crowd(w.nodeIs, 5000)
			for b.Loop() {
				w.node.must(w.rules.Replace(b.Context(), set))
			}
		})
	}
}

// BenchmarkConnection connects a task to a task of the same node, straight and by a VIP, and hangs up.
func BenchmarkConnection(b *testing.B) {
	needsRoot(b)
	for _, v := range variants {
		for _, services := range []int{1, 5000} {
			w := newWorld(b, v)
			set := crowd(w.nodeIs, services)
			set.Services[services/2].Endpoints = addrs(bAddr)
			w.node.must(w.rules.Replace(b.Context(), set))
			for name, to := range map[string]string{"straight": bAddr, "by the VIP": set.Services[services/2].VIP.String()} {
				b.Run(fmt.Sprintf("%s/%s of %d", v.name, name, services), func(b *testing.B) {
					w.a.must(w.a.do(func() error { return hammer(b, to+":80") }))
				})
			}
		}
	}
}

// hammer connects again and again from the calling thread's namespace.
func hammer(b *testing.B, to string) error {
	addr := netip.MustParseAddrPort(to)
	for b.Loop() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		// Closing sends a reset, or ports run out.
		err = errors.Join(
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}),
			unix.Close(fd))
		if err != nil {
			return err
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "connections/s")
	return nil
}
