package api

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/forward"
)

func TestWhoeverAsksAManagerThatCannotAnswerIsToldToAskAnother(t *testing.T) {
	for _, c := range []struct {
		err   error
		again bool
	}{
		{Unavailable("this manager takes no part"), true},
		{fmt.Errorf("look: %w", Unavailable("this manager takes no part")), true},
		{consensus.ErrNotLeader, true},
		{consensus.ErrStalled, true},
		{fmt.Errorf("%w: %w", consensus.ErrUnknownOutcome, consensus.ErrNotLeader), false},
		{consensus.ErrClosed, false},
	} {
		told := tell(c.err)
		if again := told.Meta().Get(forward.UnexecutedHeader) != ""; told.Code() != connect.CodeUnavailable || again != c.again {
			t.Errorf("%v: told %v, and that nothing was done: %v", c.err, told, again)
		}
	}
}
