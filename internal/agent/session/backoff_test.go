package session

import (
	"testing"
	"time"
)

func TestTriesComeFastAtFirstAndNeverTooSlow(t *testing.T) {
	now := time.Now()
	b := newBackoff(now)
	for round := range 100 {
		b.failed(0)
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
		refusals []time.Duration
		want     time.Duration
	}{
		{[]time.Duration{refusedWait}, refusedWait},
		{[]time.Duration{outcastWait, refusedWait}, refusedWait},
		{[]time.Duration{outcastWait, outcastWait}, outcastWait},
		{[]time.Duration{refusedWait, 0}, firstWait},
		{[]time.Duration{0, refusedWait}, firstWait},
	} {
		b := newBackoff(time.Now())
		for _, refusal := range c.refusals {
			b.failed(refusal)
		}
		if wait := b.next(time.Now()); wait < c.want/2 || wait > c.want {
			t.Errorf("refusals %v: waits %s, want about %s", c.refusals, wait, c.want)
		}
	}
}
