package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Identity is who this node is.
type Identity interface {
	NodeID() string
	// ClusterID is empty before the node has joined a cluster.
	ClusterID() string
	JoinCluster(cluster string) error
}

// Tasks takes what the manager wants.
type Tasks interface {
	// Apply takes assignments and waits for nothing.
	Apply(*warrenv1.Assignments)
}

// Reports gives what there is to say of the tasks.
type Reports interface {
	Ready() <-chan struct{}
	Rewind()
	Take(limit int) []*warrenv1.TaskReport
}

// Facts gives what there is to say of the machine.
type Facts interface {
	// Collect looks at the machine now.
	Collect(ctx context.Context) *warrenv1.NodeFacts
	// Changed is readable when the machine may have changed.
	Changed() <-chan struct{}
}

// Logs reads the kept output of tasks.
type Logs interface {
	Read(ctx context.Context, task string, selection *warrenv1.LogSelection, emit func(lines []*warrenv1.LogLine, caughtUp bool) error) error
}

// Options says whom a session connects, and with what.
type Options struct {
	// Managers are addresses, HOST:PORT; at least one.
	Managers []string
	Identity Identity
	Tasks    Tasks
	Reports  Reports
	Facts    Facts
	Logs     Logs
	Logger   *slog.Logger
}

// line is the agent's side of all sessions, one after the other.
type line struct {
	Options
	lastReason string // why there is no session, as last logged

	streams sync.WaitGroup
	mu      sync.Mutex
	open    map[string]context.CancelFunc // by stream id
}

// Run keeps a session open until ctx ends, and then says goodbye.
func Run(ctx context.Context, o Options) {
	l := &line{Options: o, open: map[string]context.CancelFunc{}}
	defer l.streams.Wait()

	wait := newBackoff(time.Now())
	for next := 0; ctx.Err() == nil; next++ {
		manager := o.Managers[next%len(o.Managers)]
		began := time.Now()
		welcomed, err := l.attend(ctx, manager)
		if ctx.Err() != nil {
			return
		}
		l.explain(manager, welcomed, err)
		if welcomed && time.Since(began) > lasting {
			wait = newBackoff(time.Now())
			next-- // a line that broke is taken up where it was
			continue
		}
		wait.failed(l.refused(err))
		if (next+1)%len(o.Managers) != 0 {
			continue // the next manager may answer at once
		}
		if !sleep(ctx, wait.next(time.Now())) {
			return
		}
	}
}

// explain logs why there is no session: once, until the reason changes.
func (l *line) explain(manager string, welcomed bool, err error) {
	reason := manager + err.Error()
	level := slog.LevelWarn
	if reason == l.lastReason && !welcomed {
		level = slog.LevelDebug
	}
	l.lastReason = reason
	remedy := ""
	switch code := connect.CodeOf(err); {
	case l.wrongCluster(err):
		remedy = "if this node is to move to the manager's cluster, stop the agent and start it with an empty --data-dir; else correct --manager"
	case code == connect.CodeAborted:
		remedy = "make sure that no other agent runs with a copy of this one's --data-dir"
	case code == connect.CodeUnimplemented:
		remedy = "check that --manager is the address of a warren-manager of this release"
	}
	args := []any{"manager", manager, "error", err}
	if remedy != "" {
		args = append(args, "remedy", remedy)
	}
	if welcomed {
		l.Logger.Log(context.Background(), level, "the session broke; tasks run on", args...)
		return
	}
	l.Logger.Log(context.Background(), level, "cannot attend at the manager", args...)
}

// wrongCluster tells whether this node and the manager are of different clusters. A node that is of none
// can be refused for the same kind of reason, but then it is the manager that has no cluster yet.
func (l *line) wrongCluster(err error) bool {
	return errors.Is(err, errOtherCluster) ||
		connect.CodeOf(err) == connect.CodeFailedPrecondition && l.Identity.ClusterID() != ""
}

// refused tells whether a manager answered, and will answer the same for a while.
func (l *line) refused(err error) bool {
	if l.wrongCluster(err) {
		return true
	}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodePermissionDenied,
		connect.CodeUnauthenticated, connect.CodeUnimplemented, connect.CodeAborted:
		return true
	}
	return false
}

// sleep waits for d; false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errOtherCluster: the manager is not one of this node's cluster.
var errOtherCluster = errors.New("this node belongs to another cluster")

func otherCluster(ours, theirs string) error {
	return fmt.Errorf("%w: its own is %s, the manager's %s", errOtherCluster, ours, theirs)
}
