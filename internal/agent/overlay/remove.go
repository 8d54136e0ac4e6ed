package overlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cuemby/warren/internal/agent/overlay/rules"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/wireguard"
)

// removal asks Run to take the network down.
type removal struct {
	ctx  context.Context
	done chan error
}

// Remove takes the network down and forgets all of it, as this machine leaves its cluster. Its tasks are gone by then.
// Run, which does it, goes on, and brings up the next network when there is one.
func (v *Overlay) Remove(ctx context.Context) error {
	r := removal{ctx, make(chan error, 1)}
	select {
	case v.removals <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *Overlay) remove(ctx context.Context) error {
	v.mu.Lock()
	v.config, v.status, v.taken, v.due = nil, nil, nil, due{}
	clear(v.peers)
	up := v.net
	v.net = nil
	v.settled()
	v.mu.Unlock()
	v.catalog.Clear()
	v.own = key{}
	// The next cluster counts its versions anew: nothing of its endpoints is in force yet.
	v.steering.Store(0)
	v.inForce.Store(0)
	err := v.ports.Set(nil)
	if up != nil {
		v.enforcing.Lock() // nobody is changing its rules from here on
		defer v.enforcing.Unlock()
		up.stop()
		up.running.Wait()
		err = errors.Join(err, up.rules.Remove(ctx), up.rules.Close(), up.device.Remove(ctx))
	}
	if v.Sockets != nil {
		v.Sockets.Drop()
	}
	return errors.Join(err, v.wires.Down(ctx), v.forget())
}

// TakeDown takes down whatever agents have left up on this machine, tasks' places with it, and forgets the network. It is
// for when no agent runs, nor ever may again: Run must not have been called.
func (v *Overlay) TakeDown(ctx context.Context) error {
	attached, err := v.wires.Attached(ctx)
	for task := range attached {
		err = errors.Join(err, v.wires.Detach(ctx, task))
	}
	return errors.Join(err, v.removeRules(ctx), v.removeDevice(ctx), v.wires.Down(ctx), v.forget())
}

// Close lets go of the machine's network where Run has not been called.
func (v *Overlay) Close() error { return v.wires.Close() }

func (v *Overlay) removeRules(ctx context.Context) error {
	// They are found by their names, whatever addresses they are about.
	node := traffic.Node{
		Bridge: Bridge, Device: Device, Addr: netip.AddrFrom4([4]byte{10, 208, 0, 1}), Subnet: netip.MustParsePrefix("10.208.0.0/24"),
		NodeRange: netip.MustParsePrefix("10.208.0.0/12"), VIPRange: netip.MustParsePrefix("10.224.0.0/16"),
	}
	kept, err := rules.Open(ctx, node, rules.Options{Backend: v.Backend, Logger: v.Logger})
	if err != nil {
		return err
	}
	return errors.Join(kept.Remove(ctx), kept.Close())
}

func (v *Overlay) removeDevice(ctx context.Context) error {
	there, err := net.InterfaceByName(Device)
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	device, err := wireguard.Open(ctx, wireguard.Options{Name: Device, MTU: there.MTU, Socket: v.WireGuardSocket, Kind: v.Kind, Logger: v.Logger})
	if err != nil {
		return fmt.Errorf("remove the WireGuard device: %w", err)
	}
	return device.Remove(ctx)
}
