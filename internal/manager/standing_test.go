package manager

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cuemby/warren/internal/manager/consensus"
)

func TestACallDoesNotWaitForAManagerThatAnotherHasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStanding()
		s.follow("m1", "10.0.0.1:7420")
		begin := time.Now()
		go func() {
			time.Sleep(100 * time.Millisecond)
			s.follow("m2", "10.0.0.2:7420")
		}()
		if err := s.lead(t.Context(), time.Minute, "m1"); !errors.Is(err, consensus.ErrNotLeader) || time.Since(begin) != 100*time.Millisecond {
			t.Errorf("it waited %v and got %v", time.Since(begin), err)
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			s.set(leading)
		}()
		s.follow("m1", "10.0.0.1:7420")
		if err := s.lead(t.Context(), time.Minute, "m1"); err != nil {
			t.Errorf("while it takes up the lead: %v", err)
		}
	})
}

// Those who call right after a start that took long wait for the election as others do.
func TestTheTimeThatAStartTakesIsNoneWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStanding()
		time.Sleep(time.Minute)
		_, changed := s.get()
		s.anew()
		if is := s.look(); !is.since.Equal(time.Now()) || is.follows != "" {
			t.Errorf("nobody leads since %v ago", time.Since(is.since))
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
	})
}
