package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
)

func TestAResumptionIsQuickThenPatientAndInTheEndGivesUp(t *testing.T) {
	broken := connect.NewError(connect.CodeUnavailable, errors.New("broken"))
	none := func(since time.Time, reached bool) error {
		return connect.NewError(connect.CodeUnavailable, &NoAnswerError{Since: since, Tries: []Try{{Reached: reached}}})
	}
	again := func(r *Resumption, err error, told *int) error {
		return r.Broke(context.Background(), err, func() { *told++ })
	}

	synctest.Test(t, func(t *testing.T) {
		var r Resumption
		told := 0
		// An hour of silence on a stream that is well, then managers that are gone for good.
		r.Open()
		time.Sleep(time.Hour)
		lost := time.Now()
		if err := again(&r, broken, &told); err != nil || time.Since(lost) > 100*time.Millisecond || told > 0 {
			t.Errorf("after %v: %v, told %d times", time.Since(lost), err, told)
		}
		for n := 1; ; n++ {
			r.Open()
			time.Sleep(4 * time.Second)
			err := again(&r, none(r.opened, false), &told)
			if err == nil {
				continue
			}
			if took := time.Since(lost); took < outOfReach || took > outOfReach+10*time.Second || n > 20 {
				t.Errorf("gave up after %v and %d tries", took, n)
			}
			break
		}
		if told != 1 {
			t.Errorf("told %d times", told)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var r Resumption
		told := 0
		r.Open()
		if err := again(&r, none(time.Now(), false), &told); err == nil {
			t.Error("managers that were never there are tried again")
		}
		refused := connect.NewError(connect.CodeNotFound, errors.New("no such service"))
		if err := again(&r, refused, &told); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
		// A stream that brings something and breaks at once, again and again, is not asked for in a busy loop.
		began, tries := time.Now(), 0
		for ; time.Since(began) < time.Minute; tries++ {
			r.Open()
			r.Heard()
			if err := again(&r, broken, &told); err != nil {
				t.Fatal(err)
			}
		}
		if tries > 150 || told > 0 {
			t.Errorf("tried %d times in a minute, told %d times", tries, told)
		}
		// One that waits for an answer of its manager, which has gone then, was not lost before.
		r.Open()
		time.Sleep(time.Hour)
		if err := again(&r, none(time.Now().Add(-4*time.Second), true), &told); err != nil || told != 1 {
			t.Errorf("got %v, told %d times", err, told)
		}
	})
}
