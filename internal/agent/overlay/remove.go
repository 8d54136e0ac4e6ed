package overlay

import (
	"context"
	"errors"
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
	v.config, v.status, v.due = nil, nil, due{}
	clear(v.peers)
	up := v.net
	v.net = nil
	v.settled()
	v.mu.Unlock()
	v.catalog.Clear()
	v.own = key{}
	err := v.ports.Set(nil)
	if up != nil {
		v.enforcing.Lock() // nobody is changing its rules from here on
		defer v.enforcing.Unlock()
		up.stop()
		up.running.Wait()
		err = errors.Join(err, up.rules.Remove(ctx), up.rules.Close(), up.device.Remove(ctx))
	}
	err = errors.Join(err, v.wires.Down(ctx))
	for _, name := range []string{configRecord, peersRecord, endpointsRecord, keyRecord} {
		err = errors.Join(err, v.Record.RecordNetwork(name, nil))
	}
	return err
}
