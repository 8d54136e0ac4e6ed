package client

import (
	"context"
	"errors"
	"time"
)

const (
	// The pause before a stream that broke is asked for again: the first, doubling up to the last.
	resumeFirst = 20 * time.Millisecond
	resumeLast  = 500 * time.Millisecond
	// noteworthy is how long a break lasts before people are told: most are over before, by an election.
	noteworthy = 3 * time.Second
	// outOfReach is how long the managers may be out of reach before following is given up.
	outOfReach = time.Minute
)

// Resumption says whether and when a stream that is followed is asked for again after it broke. Its zero
// value is ready; it is for one goroutine.
type Resumption struct {
	opened time.Time
	heard  bool // anything in this stream
	ever   bool // a stream was well
	lost   time.Time
	told   bool
	pause  time.Duration
}

// Open notes that the stream is asked for.
func (r *Resumption) Open() { r.opened, r.heard = time.Now(), false }

// Heard notes that something came.
func (r *Resumption) Heard() { r.heard = true }

// Broke waits, after the stream has ended with err, until it is to be asked for again, and returns nil. It
// returns err where that is no use. tell is called once a break lasts so long that people should know.
func (r *Resumption) Broke(ctx context.Context, err error, tell func()) error {
	if ctx.Err() != nil || !Transient(err) || !r.ever && !r.heard && NotReached(err) {
		return err
	}
	now := time.Now()
	at := now
	if none := new(NoAnswerError); errors.As(err, &none) {
		at = none.Since
	}
	// A stream that was there and had nothing to tell lasts longer than managers are asked for it.
	if r.heard || at.Sub(r.opened) > patience {
		r.ever, r.lost, r.told = true, at, false
	}
	if r.lost.IsZero() {
		r.lost = r.opened
	}
	if now.Sub(r.lost) > outOfReach {
		return err
	}
	if !r.told && now.Sub(r.lost) > noteworthy {
		tell()
		r.told = true
	}
	if r.pause == 0 || at.Sub(r.opened) > time.Second {
		r.pause = resumeFirst
	}
	timer := time.NewTimer(r.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.pause = min(2*r.pause, resumeLast)
	return nil
}
