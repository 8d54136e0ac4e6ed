package scheduler

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// BenchmarkPlacements measures the scheduler alone: Decide and Observe, with the state written by
// nobody else. One iteration places 20,000 tasks.
func BenchmarkPlacements(b *testing.B) {
	const tasks = 20000
	for _, nodes := range []int{1000, 10000} {
		for _, services := range []int{1, 20, 2000, tasks} {
			for _, spread := range []bool{false, true} {
				if spread && services == tasks {
					continue // measured below by what it costs one service
				}
				b.Run(fmt.Sprintf("nodes=%d/services=%d/spread=%v", nodes, services, spread), func(b *testing.B) {
					var busy time.Duration
					for range b.N {
						busy += placeAll(b, nodes, services, tasks, spread)
					}
					b.ReportMetric(float64(tasks*b.N)/busy.Seconds(), "placements/s")
				})
			}
		}
	}
}

func placeAll(b *testing.B, nodes, services, tasks int, spread bool) (busy time.Duration) {
	b.StopTimer()
	store := state.NewStore()
	log := statetest.NewProposer(store)
	setup := state.New(statetest.Epoch)
	for i := range nodes {
		setup.Create(statetest.Node(fmt.Sprintf("node-%05d", i), func(n *warrenv1.Node) {
			n.Facts.Resources = &warrenv1.Resources{NanoCpus: 64e9, MemoryBytes: 256 << 30}
			n.Spec.Labels = map[string]string{"zone": strconv.Itoa(i % 7)}
		}))
	}
	for i := range services {
		service := statetest.Replicated(fmt.Sprintf("s%d", i), uint32(tasks/services), func(s *warrenv1.Service) {
			s.Spec.Task.Reservations = &warrenv1.Resources{NanoCpus: 1e8, MemoryBytes: 64 << 20}
			if spread {
				s.Spec.Placement = &warrenv1.Placement{Spread: []string{"node.labels.zone"}}
			}
		})
		setup.Create(service)
		setup.Create(statetest.Revision(service))
		for j := range tasks / services {
			setup.Create(statetest.Task(fmt.Sprintf("t%d-%d", i, j), service.GetMeta().GetId(), uint32(j+1), "",
				statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
		}
	}
	statetest.Commit(b, log, setup)
	at, feed := store.Watch()
	s := New()
	s.Reset(at)
	for placed := 0; placed < tasks; {
		b.StartTimer()
		begin := time.Now()
		d := s.Decide(at, statetest.Epoch)
		busy += time.Since(begin)
		b.StopTimer()
		if len(d.Proposals) == 0 {
			b.Fatalf("%d of %d placed", placed, tasks)
		}
		placed += len(d.Proposals)
		for _, p := range d.Proposals {
			statetest.Commit(b, log, p.Transaction)
		}
		batch := feed.Take()
		at = batch.Snapshot
		b.StartTimer()
		begin = time.Now()
		s.Observe(at, batch.Changes)
		busy += time.Since(begin)
		b.StopTimer()
	}
	return busy
}

// BenchmarkReplacements measures the placing of tasks that each come beside the one that they replace, as in a blue-green rollout:
// 2,000 of one service, evenly spread.
func BenchmarkReplacements(b *testing.B) {
	const tasks = 2000
	for _, nodes := range []int{100, 1000} {
		for _, spread := range []bool{false, true} {
			b.Run(fmt.Sprintf("nodes=%d/spread=%v", nodes, spread), func(b *testing.B) {
				var busy time.Duration
				for range b.N {
					service := statetest.Replicated("web", tasks, func(s *warrenv1.Service) {
						if spread {
							s.Spec.Placement = &warrenv1.Placement{Spread: []string{"node.labels.zone"}}
						}
					})
					next := statetest.Replicated("web", tasks, func(s *warrenv1.Service) { s.Revision = 2 })
					objects := []state.Object{service, statetest.Revision(service), statetest.Revision(next)}
					for i := range nodes {
						objects = append(objects, statetest.Node(fmt.Sprintf("node-%05d", i), func(n *warrenv1.Node) {
							n.Spec.Labels = map[string]string{"zone": strconv.Itoa(i % 7)}
						}))
					}
					for i := range tasks {
						objects = append(objects, statetest.Task(fmt.Sprintf("old%d", i), "web", uint32(i+1), fmt.Sprintf("node-%05d", i%nodes)),
							statetest.Task(fmt.Sprintf("new%d", i), "web", uint32(i+1), "", statetest.Of(2),
								statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), statetest.Created(statetest.Epoch.Add(time.Second))))
					}
					store := statetest.New(b, objects...)
					log := statetest.NewProposer(store)
					at, feed := store.Watch()
					s := New()
					s.Reset(at)
					for placed := 0; placed < tasks; {
						begin := time.Now()
						d := s.Decide(at, statetest.Epoch)
						busy += time.Since(begin)
						if len(d.Proposals) == 0 {
							b.Fatalf("%d of %d placed", placed, tasks)
						}
						placed += len(d.Proposals)
						for _, p := range d.Proposals {
							statetest.Commit(b, log, p.Transaction)
						}
						batch := feed.Take()
						at = batch.Snapshot
						s.Observe(at, batch.Changes)
					}
				}
				b.ReportMetric(float64(tasks*b.N)/busy.Seconds(), "placements/s")
			})
		}
	}
}

// BenchmarkBlocked measures what one node's change costs while 10,000 services fit nowhere.
func BenchmarkBlocked(b *testing.B) {
	store := state.NewStore()
	log := statetest.NewProposer(store)
	setup := state.New(statetest.Epoch)
	for i := range 1000 {
		setup.Create(statetest.Node(fmt.Sprintf("node-%05d", i)))
	}
	for i := range 10000 {
		service := statetest.Replicated(fmt.Sprintf("s%d", i), 1, func(s *warrenv1.Service) {
			s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"node.labels.zone==none"}}
		})
		setup.Create(service)
		setup.Create(statetest.Revision(service))
		setup.Create(statetest.Task(fmt.Sprintf("t%d", i), service.GetMeta().GetId(), 1, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
	}
	statetest.Commit(b, log, setup)
	at, feed := store.Watch()
	s := New()
	s.Reset(at)
	turn := func(now time.Time) int {
		d := s.Decide(at, now)
		for _, p := range d.Proposals {
			statetest.Commit(b, log, p.Transaction)
		}
		batch := feed.Take()
		at = batch.Snapshot
		s.Observe(at, batch.Changes)
		return len(d.Proposals)
	}
	begin := time.Now()
	for turn(statetest.Epoch) > 0 {
	}
	explained := time.Since(begin)
	b.ResetTimer()
	for i := range b.N {
		change := state.New(statetest.Epoch)
		state.Update(change, at.Node("node-00000"), func(n *warrenv1.Node) { n.Facts.DiskFreeBytes = uint64(i) })
		statetest.Commit(b, log, change)
		turn(statetest.Epoch)
		turn(statetest.Epoch)
	}
	b.ReportMetric(explained.Seconds(), "s-to-explain-all")
}

// BenchmarkMemory reports what the view keeps for each of 100,000 tasks on 1,000 nodes.
func BenchmarkMemory(b *testing.B) {
	const tasks = 100000
	for range b.N {
		store := state.NewStore()
		log := statetest.NewProposer(store)
		setup := state.New(statetest.Epoch)
		for i := range 1000 {
			setup.Create(statetest.Node(fmt.Sprintf("node-%05d", i)))
			service := statetest.Replicated(fmt.Sprintf("s%d", i), tasks/1000)
			setup.Create(service)
			setup.Create(statetest.Revision(service))
		}
		for i := range tasks {
			setup.Create(statetest.Task(fmt.Sprintf("t%d", i), fmt.Sprintf("s%d", i/100), uint32(i%100+1), fmt.Sprintf("node-%05d", i%1000)))
		}
		statetest.Commit(b, log, setup)
		s := New()
		before := live()
		s.Reset(store.Snapshot())
		b.ReportMetric(float64(live()-before)/tasks, "bytes/task")
		runtime.KeepAlive(s)
		runtime.KeepAlive(store)
	}
}

func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
