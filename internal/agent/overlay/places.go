package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/agent/overlay/lease"
	"github.com/cuemby/warren/internal/agent/overlay/listening"
	"github.com/cuemby/warren/internal/agent/overlay/names"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var (
	// ErrDown tells that this node's overlay is not up.
	ErrDown = errors.New("the node's overlay network is not up")
	// ErrExhausted tells that the node has no address left for a task.
	ErrExhausted = lease.ErrExhausted
)

// missingPause is how long a task may not listen before that is told, and between one telling and the next.
const missingPause = 3 * time.Second

// Place is where a task is on the overlay.
type Place struct {
	// Namespace is the path of its network namespace.
	Namespace string
	Address   netip.Addr
	// ResolvConf is the content of its /etc/resolv.conf.
	ResolvConf []byte
}

// Attach gives a task its place, the same as before where it has one, and returns when the packet rules know it. It waits for the
// network to come up, and fails with ErrDown where that has failed.
func (v *Overlay) Attach(ctx context.Context, a *warrenv1.Assignment, progress func(string)) (Place, error) {
	task := a.GetTask()
	id := task.GetMeta().GetId()
	up, err := v.await(ctx, progress)
	if err != nil {
		return Place{}, err
	}
	addr, err := up.leases.Lease(id)
	if err != nil {
		return Place{}, err
	}
	v.catalog.Place(task, a.GetSpec().GetHostPorts(), addr)
	namespace, err := v.wires.Attach(ctx, id, addr)
	if err != nil {
		return Place{}, err
	}
	if len(a.GetSpec().GetHostPorts()) > 0 {
		v.rouse() // its ports are to be reserved
	}
	if err := v.enforce(ctx); err != nil {
		return Place{}, err
	}
	conf, err := names.ContainerConf(up.layout.Addr, v.ResolvConf)
	if err != nil {
		return Place{}, err
	}
	return Place{Namespace: namespace, Address: addr, ResolvConf: conf}, nil
}

// await returns the network once it is up.
func (v *Overlay) await(ctx context.Context, progress func(string)) (*network, error) {
	for told := false; ; {
		v.mu.Lock()
		up, status, settle := v.net, v.status, v.settle
		v.mu.Unlock()
		switch {
		case up != nil:
			return up, nil
		case status.GetState() == warrenv1.OverlayState_OVERLAY_STATE_FAILED:
			return nil, fmt.Errorf("%w: %s", ErrDown, status.GetError())
		}
		if !told {
			progress("waiting for the node's overlay network")
			told = true
		}
		select {
		case <-settle:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Declares tells whether a task's service says on which ports it listens.
func (v *Overlay) Declares(task string) bool { return len(v.catalog.Declared(task)) > 0 }

// Listening returns when the task listens on every port that its service declares. missing is told in words those on
// which it does not, each time that has lasted for a while.
func (v *Overlay) Listening(ctx context.Context, task string, missing func(string)) error {
	at := listening.Place{Namespace: filepath.Join(v.NamespaceDir, task), Address: v.catalog.Placed(task)}
	for {
		var ports []listening.Port
		for _, p := range v.catalog.Declared(task) {
			port := listening.Port{Protocol: listening.TCP, Number: uint16(p.Number)}
			if p.Protocol == warrenv1.Protocol_PROTOCOL_UDP {
				port.Protocol = listening.UDP
			}
			ports = append(ports, port)
		}
		bounded, cancel := context.WithTimeout(ctx, missingPause)
		err := listening.Await(bounded, at, ports)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		lacking, err := listening.Missing(at, ports)
		if err != nil {
			return err
		}
		if len(lacking) > 0 {
			texts := make([]string, 0, len(lacking))
			for _, p := range lacking {
				texts = append(texts, p.String())
			}
			missing(strings.Join(texts, ", "))
		}
	}
}

// Serve has this node send connections to the task.
func (v *Overlay) Serve(task string) {
	v.catalog.Serve(task)
	v.rouse()
}

// Withdraw has this node cease to send connections to the task.
func (v *Overlay) Withdraw(task string) {
	v.catalog.Withdraw(task)
	v.rouse()
}

// Detach takes the task off the overlay.
func (v *Overlay) Detach(ctx context.Context, task string) error {
	v.catalog.Release(task)
	token(v.unsettled) // what was told of it is to be forgotten
	v.rouse()
	if err := v.wires.Detach(ctx, task); err != nil {
		return err
	}
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up != nil {
		up.leases.Release(task)
	} else {
		v.Record.DropLease(task)
	}
	return nil
}

// Attached lists the tasks that have a place.
func (v *Overlay) Attached(ctx context.Context) ([]string, error) {
	attached, err := v.wires.Attached(ctx)
	if err != nil {
		return nil, err
	}
	tasks := maps.Clone(attached)
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up != nil { // also those whose namespace a reboot has taken
		maps.Copy(tasks, up.leases.All())
	}
	return slices.Collect(maps.Keys(tasks)), nil
}
