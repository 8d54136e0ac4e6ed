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
