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
)

// Pace sets the collector's pace after each collection from now on, for as long as the program runs.
func Pace() {
	debug.SetGCPercent(idlePercent)
	p := &pacer{live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, set: idlePercent}
	p.next(time.Now())
}

// Settle gives back to the system what is not in use now. A start is much work in little time, after which the heap would be
// left to grow as that of a busy program; it takes some ten milliseconds.
func Settle() { debug.FreeOSMemory() }

type pacer struct {
	live []metrics.Sample
	last [busyCollections]time.Time // of the latest collections, the oldest first
	set  int                        // the percentage in force
}

// next has the pacer woken by the next collection, which finds an object that nobody holds.
func (p *pacer) next(now time.Time) {
	copy(p.last[:], p.last[1:])
	p.last[len(p.last)-1] = now
	runtime.AddCleanup(&mark{}, (*pacer).collected, p)
}

// mark is what the collector finds; it has a size of its own, so that it is not merged with others.
type mark struct{ _ [16]*byte }

func (p *pacer) collected() {
	now := time.Now()
	metrics.Read(p.live)
	if want := percent(p.live[0].Value.Uint64(), now.Sub(p.last[0]), p.set); want != p.set {
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
