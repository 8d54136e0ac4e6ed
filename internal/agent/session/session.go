package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Managers knows where the managers are.
type Managers interface {
	// Addrs are their addresses, HOST:PORT.
	Addrs() []string
	// Heed takes what the manager at via has told of them, and waits for nothing.
	Heed(d *warrenv1.Directory, via string)
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

// Network is this node's part of the cluster's network. What it takes it waits for nothing with.
type Network interface {
	Configure(*warrenv1.NetworkConfig)
	HeedPeers(*warrenv1.Peers)
	HeedEndpoints(*warrenv1.Endpoints)
	// Attend is told whether a session is open.
	Attend(open bool)
	// Status is how it stands, nil before that is known; Changed is readable when it has changed.
	Status() *warrenv1.OverlayStatus
	Changed() <-chan struct{}
	// InForce is the version of the endpoints that the node acts by; Applied is readable when it has changed.
	InForce() uint64
	Applied() <-chan struct{}
	// Peers tells how the node stands with each other one, Ping pings others.
	Peers(ctx context.Context) ([]*warrenv1.OverlayPeer, error)
	Ping(ctx context.Context, addresses []string, count uint32) ([]*warrenv1.Ping, error)
}

// Inside tells what goes on on this node, and tidies it on request.
type Inside interface {
	// Watch emits what the node and the tasks of a service use (of all where that is empty), every interval.
	Watch(ctx context.Context, interval time.Duration, service string, emit func(*warrenv1.NodeUsage) error) error
	// Disk tells what takes up the node's disk.
	Disk(ctx context.Context) (*warrenv1.NodeDisk, error)
	// Prune removes the images that no task needs. It tells also where it fails half-way what it has removed.
	Prune(ctx context.Context, dryRun bool) (*warrenv1.PrunedImages, error)
}

// Options says whom a session connects, and with what.
type Options struct {
	Managers Managers
	// NodeID and ClusterID are who this node is, and of which cluster.
	NodeID, ClusterID string
	// TLS returns the configuration of connections to managers, with the certificate in force.
	TLS func() *tls.Config
	// Fresh is readable when the session is to be opened anew, so that the manager sees a new certificate.
	Fresh   <-chan struct{}
	Tasks   Tasks
	Reports Reports
	Facts   Facts
	Logs    Logs
	Network Network
	Inside  Inside
	// Standing is told, if set, which manager the session is with, or why there is none.
	Standing func(manager string, problem error)
	Logger   *slog.Logger
}

// ErrLeave is the cause with which Run's context ends where the node leaves its cluster for good.
var ErrLeave = errors.New("the node leaves its cluster")

// line is the agent's side of all sessions, one after the other.
type line struct {
	Options
	lastReason string // why there is no session, as last logged

	streams sync.WaitGroup
	mu      sync.Mutex
	open    map[string]context.CancelFunc // by stream id
}

// Run keeps a session open until ctx ends, and then says goodbye, unless the cause is ErrLeave.
func Run(ctx context.Context, o Options) {
	l := &line{Options: o, open: map[string]context.CancelFunc{}}
	defer l.streams.Wait()
	defer l.stand("", nil)

	wait, round := newBackoff(time.Now()), newRound("", "")
	for ctx.Err() == nil {
		manager, ok := round.next(o.Managers.Addrs())
		if !ok {
			if !round.tried() {
				l.stand("", errNowhere)
				wait.failed(refusedWait)
			}
			if !sleep(ctx, wait.next(time.Now())) {
				return
			}
			round = newRound(round.last, "")
			continue
		}
		s, err := l.begin(ctx, manager)
		welcomed, lasted := false, false
		for s != nil {
			l.stand(s.manager, nil)
			l.Logger.Info("attending at the manager", "manager", s.manager, "cluster", l.ClusterID)
			round.last, l.lastReason = s.manager, ""
			began := s.began
			if s, err = s.hold(ctx); s == nil && ctx.Err() == nil {
				welcomed, lasted = true, time.Since(began) > lasting
				l.explain(manager, true, err)
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case lasted:
			// Whoever it was with may be gone: any other takes this node at once.
			wait, round = newBackoff(time.Now()), newRound("", manager)
		default:
			if !welcomed {
				l.explain(manager, false, err)
			}
			wait.failed(refusal(err))
		}
	}
}

// errNowhere: no manager can be tried.
var errNowhere = errors.New("no address of a manager is known: give the agent --manager HOST:PORT")

// stand tells how the line stands.
func (l *line) stand(manager string, problem error) {
	l.Network.Attend(manager != "")
	if l.Standing != nil {
		l.Standing(manager, problem)
	}
}

// explain tells why there is no session, and logs it: once, until the reason changes.
func (l *line) explain(manager string, welcomed bool, err error) {
	reason := manager + err.Error()
	level := slog.LevelWarn
	if reason == l.lastReason && !welcomed {
		level = slog.LevelDebug
	}
	l.lastReason = reason
	args := []any{"manager", manager, "error", err}
	if remedy := remedy(err); remedy != "" {
		args = append(args, "remedy", remedy)
		err = fmt.Errorf("%w: %s", err, remedy)
	}
	l.stand("", fmt.Errorf("manager %s: %w", manager, err))
	if welcomed {
		l.Logger.Log(context.Background(), level, "the session broke; tasks run on", args...)
		return
	}
	l.Logger.Log(context.Background(), level, "cannot attend at the manager", args...)
}

// remedy says what to do about an error where the manager has not said it itself.
func remedy(err error) string {
	code := connect.CodeOf(err)
	switch {
	case wrongCluster(err):
		return "if this node is to move to the manager's cluster, run `warrenctl cluster leave` here and join that one; else correct --manager"
	case errors.Is(err, pki.ErrNotYetValid), errors.Is(err, pki.ErrExpired):
		return "check the clocks of this machine and the manager's (NTP)"
	case code == connect.CodeAborted:
		return "make sure that no other agent runs with a copy of this one's --data-dir"
	case code == connect.CodeUnimplemented:
		return "check that --manager is the address of a warren-manager of this release"
	}
	return ""
}

// wrongCluster tells whether this node and the manager are of different clusters.
func wrongCluster(err error) bool {
	return errors.Is(err, errOtherCluster) || errors.Is(err, pki.ErrForeign) || connect.CodeOf(err) == connect.CodeFailedPrecondition
}

// refusal is how long to wait at least where a manager answered, and will answer the same for a while.
func refusal(err error) time.Duration {
	if wrongCluster(err) {
		return refusedWait
	}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodePermissionDenied, connect.CodeUnimplemented, connect.CodeAborted:
		return refusedWait
	case connect.CodeUnauthenticated:
		return outcastWait
	}
	return 0
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
