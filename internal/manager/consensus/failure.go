package consensus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Why something was not done.
var (
	// ErrNotLeader: this manager does not lead. What was asked for had no effect and has none later.
	ErrNotLeader = errors.New("this manager is not the leader")
	// ErrUnknownOutcome: what was asked for was under way when the lead, or the log, was lost. It may have
	// taken effect, may yet take effect, or may not.
	ErrUnknownOutcome = errors.New("the leader was lost while it wrote this, which may have been done or not")
	// ErrStalled: an earlier write is stuck because most managers do not write it. What was asked for had
	// no effect and has none later.
	ErrStalled = errors.New("most managers do not get their logs written (is a disk full or failing?)")
	// ErrClosed: the node was closed. What was asked for had no effect and has none later.
	ErrClosed = errors.New("the manager is shutting down")
	// ErrInitialized: the node already belongs to a cluster.
	ErrInitialized = errors.New("this manager already belongs to a cluster")
	// ErrTooMany: the cluster has as many managers as it may have.
	ErrTooMany = errors.New("the cluster has as many managers as it may have")
	// ErrAlone: there is no other manager that could take the lead.
	ErrAlone = errors.New("there is no other manager that can be reached and votes")
)

// outcome says what has become of something that was given to raft to write.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrStalled
	case errors.Is(err, raft.ErrLeadershipLost):
		return ErrUnknownOutcome
	}
	// What could not be written to the log, or not be made certain, can be there after a restart.
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// question says what has become of something that changes nothing.
func question(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrLeadershipLost):
		return ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrStalled
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("ask raft: %w", err)
}
