package state

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// runningTask is a task as large as they are in practice.
func runningTask(i int) *warrenv1.Task {
	at := timestamppb.New(then.Add(time.Duration(i) * time.Millisecond))
	return &warrenv1.Task{
		Meta:      &warrenv1.Meta{Id: fmt.Sprintf("task%012d", i), CreatedAt: at, UpdatedAt: at},
		ServiceId: fmt.Sprintf("service%09d", i/100), ServiceName: fmt.Sprintf("service-%d", i/100),
		Slot: uint32(i%100 + 1), Revision: 1, NodeId: fmt.Sprintf("node%012d", i%1000),
		Desired: warrenv1.DesiredState_DESIRED_STATE_RUNNING,
		Status: &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_RUNNING, Attempt: 1, Since: at, StartedAt: at, Pid: uint32(i + 1),
			ContainerId: fmt.Sprintf("task%012d", i), ImageDigest: fmt.Sprintf("sha256:%064d", i/100),
		},
	}
}

// entries are log entries that create tasks, each with that many transactions of one task.
func entries(tasks, size int) [][]byte {
	var all [][]byte
	for i := 0; i < tasks; i += size {
		var entry statev1.Entry
		for j := i; j < min(i+size, tasks); j++ {
			tx := New(then)
			tx.Create(runningTask(j))
			entry.Transactions = append(entry.Transactions, tx.Message())
		}
		data, err := proto.Marshal(&entry)
		if err != nil {
			panic(err)
		}
		all = append(all, data)
	}
	return all
}

func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMemory reports what a task costs in the store, indexes included.
func BenchmarkMemory(b *testing.B) {
	const tasks = 100000
	for range b.N {
		log := entries(tasks, 1000)
		before := live()
		r := newReplica()
		for i, data := range log {
			r.machine.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
		}
		b.ReportMetric(float64(live()-before)/tasks, "bytes/task")
		runtime.KeepAlive(log)
		runtime.KeepAlive(r)
	}
}

// BenchmarkApply measures how fast the log is applied, one task to a transaction.
func BenchmarkApply(b *testing.B) {
	const tasks = 20000
	for _, size := range []int{1, 16, 1000} {
		log := entries(tasks, size)
		b.Run(fmt.Sprintf("transactions=%d", size), func(b *testing.B) {
			for range b.N {
				r := newReplica()
				for i, data := range log {
					r.machine.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
				}
			}
			b.ReportMetric(float64(tasks*b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// BenchmarkSnapshot measures saving and loading 20,000 tasks.
func BenchmarkSnapshot(b *testing.B) {
	r := newReplica()
	for _, data := range entries(20000, 1000) {
		r.append(data)
	}
	saved := bytesOf(b, r.Snapshot()).Bytes()
	b.Run("save", func(b *testing.B) {
		for range b.N {
			bytesOf(b, r.Snapshot())
		}
	})
	b.Run("load", func(b *testing.B) {
		for range b.N {
			if err := newReplica().Load(bytes.NewReader(saved)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
