package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/control"
	"github.com/cuemby/warren/internal/agent/membership"
	"github.com/cuemby/warren/internal/agent/session"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Tasks are the node's tasks as a whole.
type Tasks interface {
	// Active counts those that have not ended.
	Active() int
	// Clear stops them all and returns when nothing is left of them.
	Clear(ctx context.Context) error
}

// node is this machine between joining and leaving: it waits to be a member, holds the session while it is,
// and begins anew when it has left.
type node struct {
	ctx        context.Context // the agent's
	membership *membership.Membership
	tasks      Tasks
	// disconnect takes the node's part of the cluster's network down.
	disconnect func(context.Context) error
	// forget drops all that is recorded of tasks.
	forget func() error
	// hold keeps a session until ctx ends.
	hold func(ctx context.Context, mine *pki.Credentials, standing func(manager string, problem error))
	// status, if set, is told how the node stands whenever that may have changed.
	status func(string)
	logger *slog.Logger

	departures sync.WaitGroup

	mu       sync.Mutex
	manager  string                  // that the session is with
	problem  error                   // why there is none
	joining  error                   // why this machine is no member yet
	leaving  chan struct{}           // closed when a departure that is under way is over; nil where there is none
	stop     context.CancelCauseFunc // ends the attendance that is under way
	attended chan struct{}           // closed when it has ended; nil where there is none
}

var _ control.Node = (*node)(nil)

// run attends at the managers whenever this machine is a member, until ctx ends.
func (n *node) run(ctx context.Context) {
	for ctx.Err() == nil {
		n.report()
		if _, err := n.membership.Await(ctx); err == nil {
			n.attend(ctx)
		}
	}
	n.departures.Wait()
}

// attend holds the session and keeps the certificate until ctx ends or the node leaves. While a node is
// leaving it waits for that instead.
func (n *node) attend(ctx context.Context) {
	attending, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n.mu.Lock()
	if leaving := n.leaving; leaving != nil {
		n.mu.Unlock()
		select {
		case <-leaving:
		case <-ctx.Done():
		}
		return
	}
	mine := n.membership.Holder().Get()
	if mine == nil { // it has just left
		n.mu.Unlock()
		return
	}
	attended := make(chan struct{})
	n.stop, n.attended = stop, attended
	n.mu.Unlock()
	defer close(attended)

	var keeping sync.WaitGroup
	keeping.Go(func() { n.membership.Keep(attending) })
	n.hold(attending, mine, n.stand)
	stop(nil)
	keeping.Wait()
}

// stand notes how the session stands.
func (n *node) stand(manager string, problem error) {
	n.mu.Lock()
	n.manager, n.problem = manager, problem
	n.mu.Unlock()
	n.report()
}

// report tells, in words, how the node stands.
func (n *node) report() {
	if n.status != nil {
		n.status(words(n.Describe()))
	}
}

func words(d *warrenv1.GetAgentResponse) string {
	switch {
	case d.GetNodeId() == "" && d.GetProblem() == "":
		return "waits to join a cluster"
	case d.GetNodeId() == "":
		return "cannot join the cluster yet: " + d.GetProblem()
	case d.GetManager() != "":
		return "node " + d.GetNodeId() + ", in session with " + d.GetManager()
	case d.GetProblem() != "":
		return "node " + d.GetNodeId() + ", no session with a manager: " + d.GetProblem()
	}
	return "node " + d.GetNodeId() + ", looks for a manager"
}

// connected tells whether there is a session.
func (n *node) connected() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.manager != ""
}

// cannotJoin notes why this machine, which is to join by itself, has not yet.
func (n *node) cannotJoin(problem error) {
	n.mu.Lock()
	n.joining = problem
	n.mu.Unlock()
	n.report()
}

// Join implements control.Node.
func (n *node) Join(ctx context.Context, token string, managers []string) (cluster, node string, err error) {
	mine, err := n.membership.Join(ctx, token, managers)
	if err != nil {
		return "", "", err
	}
	return mine.Identity().Cluster, mine.Identity().Name, nil
}

// Leave implements control.Node. It goes on when its caller does not wait for it; an agent that ends before
// it is done is a member still.
func (n *node) Leave(ctx context.Context, force bool) error {
	if n.membership.NodeID() == "" {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("this machine is not a member of a cluster: there is nothing to leave"))
	}
	if active := n.tasks.Active(); active > 0 && !force {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s on this node: drain it first (`warrenctl node drain` on a manager), or use --force to stop what runs here", running(active)))
	}
	n.mu.Lock()
	if n.leaving != nil {
		n.mu.Unlock()
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("this node is leaving already"))
	}
	n.leaving = make(chan struct{})
	stop, attended := n.stop, n.attended
	n.mu.Unlock()

	left := make(chan error, 1)
	n.departures.Go(func() {
		if attended != nil {
			stop(session.ErrLeave)
			<-attended
		}
		left <- n.leave()
		n.mu.Lock()
		defer n.mu.Unlock()
		close(n.leaving)
		n.leaving = nil
	})
	select {
	case err := <-left:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave does what is left to do when the session has ended. The credentials go last: until then the node is
// a member, which an agent that is killed meanwhile takes up again.
func (n *node) leave() error {
	mine := n.membership.Holder().Get()
	if mine == nil {
		return nil
	}
	if err := n.tasks.Clear(n.ctx); err != nil {
		return fmt.Errorf("leave the cluster: stop the node's tasks: %w", err)
	}
	if err := n.disconnect(n.ctx); err != nil {
		return fmt.Errorf("leave the cluster: take down the overlay network: %w", err)
	}
	if err := n.forget(); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	if err := n.membership.Forget(n.ctx); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	n.logger.Info("left the cluster; waiting to join one", "cluster", mine.Identity().Cluster, "node", mine.Identity().Name)
	return nil
}

func running(tasks int) string {
	if tasks == 1 {
		return "1 task runs"
	}
	return fmt.Sprintf("%d tasks run", tasks)
}

// Describe implements control.Node.
func (n *node) Describe() *warrenv1.GetAgentResponse {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &warrenv1.GetAgentResponse{Version: version.Version, Manager: n.manager, Tasks: uint32(n.tasks.Active())}
	if problem := cmp.Or(n.problem, n.joining); problem != nil {
		d.Problem = problem.Error()
	}
	if mine := n.membership.Holder().Get(); mine != nil {
		d.ClusterId, d.NodeId = mine.Identity().Cluster, mine.Identity().Name
		d.CertificateExpiresAt = timestamppb.New(mine.NotAfter())
	}
	return d
}
