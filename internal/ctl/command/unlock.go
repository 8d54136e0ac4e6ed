package command

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// unlockTimeout bounds the wait for a manager to have opened what it holds, a large state included.
const unlockTimeout = 2 * time.Minute

// ClusterUnlock is `cluster unlock`.
type ClusterUnlock struct{}

// Help is the text below the usage line.
func (ClusterUnlock) Help() string {
	return "The key is asked for on a terminal, and read from standard input elsewhere. " +
		"`warrenctl cluster unlock-key` on a manager that runs prints it.\n\n" +
		"Example:\n\n    warrenctl cluster unlock < /root/unlock-key"
}

// Run does it.
func (c *ClusterUnlock) Run(ctx context.Context, s *Session) error {
	text, err := s.secret(ctx, "Unlock key")
	if err != nil {
		return err
	}
	key, err := unlockkey.Parse(text)
	if err != nil {
		return failure.AsUsage(err)
	}
	ctx, cancel := context.WithTimeout(ctx, unlockTimeout)
	defer cancel()
	if _, err := s.Managers.UnlockManager(ctx, connect.NewRequest(&warrenv1.UnlockManagerRequest{Key: key.Text()})); err != nil {
		return err
	}
	return s.print("The manager is unlocked.")
}

// ClusterUnlockKey is `cluster unlock-key`.
type ClusterUnlockKey struct {
	Rotate bool   `help:"Make a new key. The old one still unlocks managers that are down and have not heard of it."`
	Quiet  bool   `short:"q" help:"Print the key alone."`
	Output string `short:"o" enum:"text,json,yaml" default:"text" help:"text, json or yaml." placeholder:"FORM"`
}

// Help is the text below the usage line.
func (ClusterUnlockKey) Help() string {
	return "Examples:\n\n    warrenctl cluster unlock-key\n\n    warrenctl cluster unlock-key --rotate -q"
}

// Run does it.
func (c *ClusterUnlockKey) Run(ctx context.Context, s *Session) error {
	res, err := s.Trust.GetUnlockKey(ctx, connect.NewRequest(&warrenv1.GetUnlockKeyRequest{Rotate: c.Rotate}))
	if err != nil {
		return err
	}
	if c.Quiet {
		return s.print(res.Msg.GetKey())
	}
	if c.Rotate {
		s.Err.Printf("The key is replaced. Keep the old one until every manager has been seen with the new one: it unlocks those that were down.")
	}
	if c.Output != "text" {
		return output.Document(s.Out, c.Output, res.Msg)
	}
	return s.printUnlockKey(res.Msg.GetKey())
}

// printUnlockKey prints the key with what it is for.
func (s *Session) printUnlockKey(key string) error {
	return s.print("After a restart a manager waits until `warrenctl cluster unlock` on its machine is given this key:\n\n    " + key + "\n\n" +
		"Keep it in a safe place: when all managers are down and it is lost, so is the cluster.")
}
