package manager_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// BenchmarkCreateService is the whole way of a write: client, unix socket, rules, raft log on disk,
// answer. The control loops run beside it.
func BenchmarkCreateService(b *testing.B) {
	for _, c := range []struct {
		callers  int
		replicas uint32
	}{{1, 0}, {16, 0}, {1, 1}, {16, 1}} {
		b.Run(fmt.Sprintf("callers=%d/replicas=%d", c.callers, c.replicas), func(b *testing.B) {
			r := start(b, b.TempDir())
			r.init(b)
			if _, err := r.services.CreateService(b.Context(), create("first", 0)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var callers sync.WaitGroup
			for range c.callers {
				callers.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if _, err := r.services.CreateService(b.Context(), create(fmt.Sprintf("web-%d", n), c.replicas)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}

// BenchmarkListServices lists 1,000 services of three tasks each.
func BenchmarkListServices(b *testing.B) {
	r := start(b, b.TempDir())
	r.init(b)
	for n := range 1000 {
		if _, err := r.services.CreateService(b.Context(), create(fmt.Sprintf("web-%d", n), 3)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		res, err := r.services.ListServices(b.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{}))
		if err != nil || len(res.Msg.GetServices()) != 1000 {
			b.Fatal(len(res.Msg.GetServices()), err)
		}
	}
}
