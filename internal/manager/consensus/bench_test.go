package consensus

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
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

// BenchmarkRestart measures how long a manager takes to know everything again, with 100,000 tasks in the
// state: from a snapshot, and from a log as long as it may grow.
func BenchmarkRestart(b *testing.B) {
	const services, replicas = 100, 1000
	for _, from := range []string{"snapshot", "snapshot and small entries", "snapshot and big entries"} {
		b.Run("from="+strings.ReplaceAll(from, " ", "_"), func(b *testing.B) {
			dir := b.TempDir()
			m := aloneOn(b, quick(b, dir))
			for s := range services {
				service := statetest.Replicated(fmt.Sprintf("s%d", s), replicas)
				tx := state.New(statetest.Epoch)
				tx.Create(service)
				for r := range replicas {
					tx.Create(statetest.Task(fmt.Sprintf("s%d.%d", s, r), service.GetMeta().GetId(), uint32(r+1), fmt.Sprintf("n%d", r%100)))
				}
				if results, err := m.Propose(b.Context(), tx); err != nil || results != nil {
					b.Fatal(results, err)
				}
			}
			if err := m.raft.Snapshot().Error(); err != nil {
				b.Fatal(err)
			}
			if from != "snapshot" {
				writers := map[string]int{"snapshot and small entries": 1, "snapshot and big entries": 64}[from]
				var all sync.WaitGroup
				for w := range writers {
					all.Go(func() {
						for range snapshotTransactions/writers - services {
							s := m.store.Snapshot()
							tx := state.New(statetest.Epoch)
							state.Update(tx, s.Task(fmt.Sprintf("s%d.1", w)), func(t *warrenv1.Task) { t.Status.Attempt++ })
							if _, err := m.Propose(b.Context(), tx); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			}
			m.close(b)
			b.ResetTimer()
			for range b.N {
				m := alone(b, dir, nil)
				b.StopTimer()
				if n := m.store.Snapshot().TaskCount(); n != services*replicas {
					b.Errorf("%d tasks are there", n)
				}
				m.close(b)
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/restart")
		})
	}
}

// quick returns options for the folder with which nothing is synced to disk.
func quick(b *testing.B, dir string) Options {
	o := memberOptions("m1", dir, nil, nil)
	disk, err := o.disk()
	if err != nil {
		b.Fatal(err)
	}
	if err := disk.Log.(*raftboltdb.BoltStore).Close(); err != nil {
		b.Fatal(err)
	}
	log, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft.db"), BoltOptions: boltOptions, NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	disk.Log, disk.Close = log, log.Close
	o.Disk = disk
	return o
}

// BenchmarkVerifyLeader measures what it costs a read to be sure, by that many readers at once, with three
// managers in one process.
func BenchmarkVerifyLeader(b *testing.B) {
	transports := map[string]*raft.InmemTransport{}
	members := map[string]*member{}
	var servers []raft.Server
	for _, id := range []string{"m1", "m2", "m3"} {
		_, transport := raft.NewInmemTransport(raft.ServerAddress(id))
		for other, there := range transports {
			transport.Connect(raft.ServerAddress(other), there)
			there.Connect(raft.ServerAddress(id), transport)
		}
		transports[id], members[id] = transport, open(b, id, b.TempDir(), transport, nil)
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	if err := members["m1"].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	var leader *member
	for leader == nil {
		changed := members["m1"].Changed()
		if id, _ := members["m1"].Leader(); id != "" && members[id].VerifyLeader(b.Context()) == nil {
			leader = members[id]
			continue
		}
		<-changed
	}
	for _, readers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			var next atomic.Int64
			var all sync.WaitGroup
			for range readers {
				all.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if err := leader.VerifyLeader(b.Context()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
	for _, m := range members {
		m.close(b)
	}
}
