package session

import (
	"math/rand/v2"
	"time"
)

const (
	lasting     = 2 * time.Second        // a session shorter than this counts as a failed try
	firstWait   = 100 * time.Millisecond // doubles with every round of failures
	earlyMost   = time.Second            // while the managers may just be restarting …
	early       = 30 * time.Second       // … which they may for this long
	lateMost    = 5 * time.Second
	refusedWait = 10 * time.Second // after a manager has said no
	outcastWait = time.Minute      // after one has said that this node's certificate is worth nothing
)

// backoff is how long to wait before the managers are tried again.
type backoff struct {
	since  time.Time // when the line went down
	rounds int
	least  time.Duration // the shortest wait that a manager of this round has earned by refusing
	tried  bool
}

func newBackoff(now time.Time) *backoff { return &backoff{since: now} }

// failed notes one failed try of the round: one that was refused is worth repeating only after a while.
func (b *backoff) failed(refusal time.Duration) {
	if !b.tried || refusal < b.least {
		b.least = refusal
	}
	b.tried = true
}

// next ends the round, and says how long to wait before another. Half of it is left to chance, so
// that a manager that comes back is not met by all its agents at once.
func (b *backoff) next(now time.Time) time.Duration {
	wait := b.least
	if wait == 0 {
		most := earlyMost
		if now.Sub(b.since) > early {
			most = lateMost
		}
		wait = min(firstWait<<min(b.rounds, 10), most)
		b.rounds++
	}
	b.least, b.tried = 0, false
	return wait/2 + rand.N(wait/2)
}
