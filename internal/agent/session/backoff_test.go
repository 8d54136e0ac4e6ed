package session

import (
	"testing"
	"time"
)

func TestTriesComeFastAtFirstAndNeverTooSlow(t *testing.T) {
	now := time.Now()
	b := newBackoff(now)
	for round := range 100 {
		b.failed(false)
		wait := b.next(now)
		most := earlyMost
		if now.Sub(b.since) > early {
			most = lateMost
		}
		if wait <= 0 || wait > most || round == 0 && wait > firstWait {
			t.Fatalf("round %d, %s after the line went down: waits %s", round, now.Sub(b.since), wait)
		}
		now = now.Add(wait)
	}
	if now.Sub(b.since) < early {
		t.Fatal("a hundred rounds took less time than there should be between them")
	}
}

func TestOnlyWhenEveryManagerRefusesIsTheWaitLong(t *testing.T) {
	for _, c := range []struct {
		refusals []bool
		long     bool
	}{
		{[]bool{true}, true},
		{[]bool{true, true}, true},
		{[]bool{true, false}, false},
		{[]bool{false, true}, false},
	} {
		b := newBackoff(time.Now())
		for _, refused := range c.refusals {
			b.failed(refused)
		}
		if wait := b.next(time.Now()); wait >= refusedWait/2 != c.long {
			t.Errorf("refusals %v: waits %s", c.refusals, wait)
		}
	}
}
