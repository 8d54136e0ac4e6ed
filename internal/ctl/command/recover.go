package command

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/failure"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ClusterRecover is `cluster recover`.
type ClusterRecover struct {
	Force bool `short:"f" help:"Recover although other managers can be reached, and ask nothing."`
	Yes   bool `short:"y" help:"Ask nothing."`
}

// Help is the text below the usage line.
func (ClusterRecover) Help() string {
	return "For when most managers are lost for good. The manager on this machine becomes the only one of its cluster, with the state it has: " +
		"what only the others knew is lost, and none of them may come back before `warrenctl cluster leave --force` was run on it. " +
		"While most managers can come back, start them instead.\n\n" +
		"Example:\n\n    warrenctl cluster recover"
}

const (
	// namingTimeout bounds the wait for a cluster's name, which a manager without a leader may not tell.
	namingTimeout = 5 * time.Second
	// recoverTimeout bounds the wait for the manager to lead, a large state included.
	recoverTimeout = 2 * time.Minute
)

// Run does it.
func (c *ClusterRecover) Run(ctx context.Context, s *Session) error {
	if !c.Force && !c.Yes {
		if err := c.confirm(ctx, s); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	if _, err := s.Managers.RecoverManager(ctx, connect.NewRequest(&warrenv1.RecoverManagerRequest{Force: c.Force})); err != nil {
		return err
	}
	return s.print("The cluster is recovered; this is its only manager. Others join anew: see `warrenctl cluster join-token manager`.")
}

// confirm has the user type the cluster's name, or its id where the name cannot be learnt.
func (c *ClusterRecover) confirm(ctx context.Context, s *Session) error {
	if s.terminal() == nil {
		return failure.Usagef("there is no terminal to ask on whether this is meant: give --yes")
	}
	manager, err := s.Managers.GetManager(ctx, connect.NewRequest(&warrenv1.GetManagerRequest{}))
	if err != nil {
		return err
	}
	id := manager.Msg.GetClusterId()
	if id == "" {
		return fmt.Errorf("this manager is in no cluster, so there is nothing to recover: restore a backup with `warrenctl cluster restore`")
	}
	name := ""
	short, cancel := context.WithTimeout(ctx, namingTimeout)
	if res, err := s.Cluster.GetCluster(short, connect.NewRequest(&warrenv1.GetClusterRequest{})); err == nil {
		name = res.Msg.GetCluster().GetSpec().GetName()
	}
	cancel()
	what, want := "name", name
	if name == "" {
		what, want = "id", id
	}
	s.Err.Printf("This makes manager %s the only one of cluster %s. What only other managers knew is lost, and none of them may come back.", manager.Msg.GetId(), cmp.Or(name, id))
	got, err := s.answer(ctx, fmt.Sprintf("Type the cluster's %s, %s, to go on:", what, want))
	if err != nil {
		return err
	}
	if got != want {
		return failure.Usagef("that is not the cluster's %s: nothing was done", what)
	}
	return nil
}
