package consensus

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"google.golang.org/protobuf/proto"
)

// BenchmarkPropose measures writes of one small object, by that many callers at once.
func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			m := alone(b, b.TempDir(), nil)
			defer m.close(b)
			b.ResetTimer()
			var next atomic.Int64
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if err := m.create(b.Context(), fmt.Sprintf("n%d", i)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// BenchmarkFloor measures what the log alone costs: one entry of the same size at a time, and 16.
func BenchmarkFloor(b *testing.B) {
	data, err := proto.Marshal(creation("n1234567").Message())
	if err != nil {
		b.Fatal(err)
	}
	for _, together := range []int{1, 16} {
		b.Run(fmt.Sprintf("entries=%d", together), func(b *testing.B) {
			log, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(b.TempDir(), "raft.db"), BoltOptions: boltOptions})
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			b.ResetTimer()
			for i := 0; i < b.N; i += together {
				var logs []*raft.Log
				for j := range together {
					logs = append(logs, &raft.Log{Index: uint64(i + j + 1), Term: 1, Data: data})
				}
				if err := log.StoreLogs(logs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
