package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	lossReplicas  = 30 // ten on each node
	drainReplicas = 50
)

// measureNodeLoss pulls the plug of a node and times until all its tasks run elsewhere: the cable first, so that
// nobody hears its last words, then its agent. Each round has a cluster of its own.
func measureNodeLoss(ctx context.Context, b *bench) error {
	var times []time.Duration
	for range max(3, b.rounds) {
		took, err := b.loseNode(ctx)
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	b.row("node_loss_ms", milliseconds(median(times)), "ms", fmt.Sprintf("a node's plug pulled until its %d tasks run elsewhere", lossReplicas/maxNodes))
	b.row("node_loss_worst_ms", milliseconds(slices.Max(times)), "ms", fmt.Sprintf("the worst of %d", len(times)))
	return nil
}

func (b *bench) loseNode(ctx context.Context) (took time.Duration, err error) {
	c, err := b.startCluster(ctx, maxNodes)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.create(ctx, spec("lost", b.machine.image, lossReplicas)); err != nil {
		return 0, err
	}
	if err := c.converged(ctx, "lost"); err != nil {
		return 0, err
	}
	victim := c.agents[len(c.agents)-1]
	id, err := c.nodeID(ctx, victim.name)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := victim.machine.down(uplinkName); err != nil {
		return 0, err
	}
	if err := errors.Join(victim.process.command.Process.Kill(), victim.wireguard.command.Process.Kill()); err != nil {
		return 0, err
	}
	err = c.watch(ctx, "lost", func(p *warrenv1.ServiceProgress) bool {
		return p.GetRunning() == lossReplicas && !slices.ContainsFunc(p.GetSlots(), func(s *warrenv1.SlotProgress) bool { return s.GetNodeId() == id })
	})
	return time.Since(begin), err
}

// measureDrain drains a node of its tasks, which go to two others, and times until all of them run there and nothing is
// left on the first.
func measureDrain(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, maxNodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	const active, pause, drain = warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE,
		warrenv1.NodeAvailability_NODE_AVAILABILITY_PAUSE, warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
	var times []time.Duration
	for range max(3, b.rounds/2) {
		for _, other := range []string{"node-1", "node-3"} {
			if err := c.makeAvailable(ctx, other, pause); err != nil {
				return err
			}
		}
		if err := c.create(ctx, spec("web", b.machine.image, drainReplicas)); err != nil {
			return err
		}
		if err := c.converged(ctx, "web"); err != nil {
			return err
		}
		for _, other := range []string{"node-1", "node-3"} {
			if err := c.makeAvailable(ctx, other, active); err != nil {
				return err
			}
		}
		begin := time.Now()
		if err := c.makeAvailable(ctx, "node-2", drain); err != nil {
			return err
		}
		if err := c.vacated(ctx, "node-2", "web"); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
		if err := errors.Join(c.clean(ctx, "web"), c.makeAvailable(ctx, "node-2", active)); err != nil {
			return err
		}
	}
	b.row(fmt.Sprintf("drain_%d_ms", drainReplicas), milliseconds(median(times)), "ms", fmt.Sprintf("%d tasks moved from a node to two others, replacements first", drainReplicas))
	return nil
}

func (c *cluster) makeAvailable(ctx context.Context, node string, availability warrenv1.NodeAvailability) error {
	res, err := c.nodes.GetNode(ctx, connect.NewRequest(&warrenv1.GetNodeRequest{Ref: node}))
	if err != nil {
		return err
	}
	s := res.Msg.GetEntry().GetNode().GetSpec()
	s.Availability = availability
	_, err = c.nodes.UpdateNode(ctx, connect.NewRequest(&warrenv1.UpdateNodeRequest{Ref: node, Spec: s}))
	return err
}

func (c *cluster) nodeID(ctx context.Context, node string) (string, error) {
	res, err := c.nodes.GetNode(ctx, connect.NewRequest(&warrenv1.GetNodeRequest{Ref: node}))
	if err != nil {
		return "", err
	}
	return res.Msg.GetEntry().GetNode().GetMeta().GetId(), nil
}
