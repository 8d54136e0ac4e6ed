// Package heap paces the garbage collector of a program that is idle most of the time and then very busy.
// Idle, its heap is to be small; busy, a small heap is collected many times a second, which takes a fifth
// of the processor from the work (measured with 16 callers that create services).
//
// Start with Pace.
package heap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	// idlePercent is how far the heap grows between collections, in percent of what is in use. With
	// 100,000 tasks a manager holds some 440 MB.
	idlePercent = 75
	// busyPercent is the same while collections follow each other quickly, as far as it stays within
	// busyRoom bytes.
	busyPercent = 400
	busyRoom    = 96 << 20
	// busy is the time within which so many collections mean much work.
	busyTime        = time.Second
	busyCollections = 4
	// startPercent is the same while the program starts, as long as startRoom bytes are in use at most. What lives on is
	// made among much that does not, and lies scattered in all the memory that both took: of 16 MB less than 7 were in use.
	startPercent = 30
	startRoom    = 16 << 20
)

// Pace sets the collector's pace after each collection from now on, for as long as the program runs. It is returned to be told
// when the program has started.
func Pace() *Pacer {
	debug.SetGCPercent(startPercent)
	p := &Pacer{live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, set: startPercent}
	p.next(time.Now())
	return p
}

// Pacer is what sets the pace.
type Pacer struct {
	started atomic.Bool
	live    []metrics.Sample
	last    [busyCollections]time.Time // of the latest collections, the oldest first
	set     int                        // the percentage in force
}

// Settle has the program be one that has started, and gives back to the system what is not in use now. It takes some ten
// milliseconds.
func (p *Pacer) Settle() {
	p.started.Store(true)
	debug.FreeOSMemory()
}

// next has the pacer woken by the next collection, which finds an object that nobody holds.
func (p *Pacer) next(now time.Time) {
	copy(p.last[:], p.last[1:])
	p.last[len(p.last)-1] = now
	runtime.AddCleanup(&mark{}, (*Pacer).collected, p)
}

// mark is what the collector finds; it has a size of its own, so that it is not merged with others.
type mark struct{ _ [16]*byte }

func (p *Pacer) collected() {
	now := time.Now()
	metrics.Read(p.live)
	live := p.live[0].Value.Uint64()
	want := startPercent
	if p.started.Load() || live > startRoom {
		want = percent(live, now.Sub(p.last[0]), p.set)
	}
	if want != p.set {
		debug.SetGCPercent(want)
		p.set = want
	}
	p.next(now)
}

// percent is how far a heap with so many bytes in use may grow, when the last collections took so long
// at the percentage in force. A heap that may grow further is collected more rarely by that alone, so what
// counts is how often it would be at the idle percentage; otherwise the pace went back and forth under
// full load, and two collections in five were those of an idle program.
func percent(live uint64, since time.Duration, set int) int {
	if since > busyTime*time.Duration(set)/idlePercent || live == 0 {
		return idlePercent
	}
	return int(min(max(busyRoom*100/live, idlePercent), busyPercent))
}
