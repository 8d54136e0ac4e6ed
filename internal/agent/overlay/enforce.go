package overlay

import (
	"context"
	"strings"

	"github.com/cuemby/warren/internal/agent/overlay/catalog"
	"github.com/cuemby/warren/internal/agent/overlay/port"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// replace puts everything that the catalog knows in force.
func (v *Overlay) replace(ctx context.Context, up *network) error {
	v.enforcing.Lock()
	defer v.enforcing.Unlock()
	return v.replaceLocked(ctx, up)
}

func (v *Overlay) replaceLocked(ctx context.Context, up *network) error {
	all, version := v.catalog.All()
	if err := up.rules.Replace(ctx, all); err != nil {
		v.broken = true
		return err
	}
	v.broken = false
	v.applyVersion(version)
	return nil
}

// enforce puts in force what has changed in the catalog. It is called by whoever needs that, and returns at once
// where somebody else has done it meanwhile. Without a network there is nothing to do.
func (v *Overlay) enforce(ctx context.Context) error {
	v.enforcing.Lock()
	defer v.enforcing.Unlock()
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up == nil {
		return nil
	}
	if v.broken {
		return v.replaceLocked(ctx, up)
	}
	change, version, some := v.catalog.Changes()
	if some {
		if err := up.rules.Apply(ctx, change); err != nil {
			v.broken = true
			v.rouse()
			return err
		}
	}
	v.applyVersion(version)
	return nil
}

// applyVersion notes that new connections go by the endpoints of that version.
func (v *Overlay) applyVersion(version uint64) {
	if v.steering.Swap(version) != version {
		token(v.unsettled)
	}
}

// acknowledge has the managers told which endpoints this node acts by: once they are on record, so that it does not act by
// older ones when its agent was killed, and once what cannot go on by them, such as UDP to a task that has left, has been
// cut as well. That takes disk and kernel a while, which no change of the rules waits for.
func (v *Overlay) acknowledge(ctx context.Context) {
	retry := newAlarm()
	defer retry.stop()
	for {
		select {
		case <-v.unsettled:
		case <-retry.C:
		case <-ctx.Done():
			v.keepRecord(retry)
			return
		}
		version := v.steering.Load()
		v.keepRecord(retry)
		v.mu.Lock()
		up := v.net
		v.mu.Unlock()
		if up != nil {
			if err := up.rules.Settle(ctx); err != nil && ctx.Err() == nil {
				v.Logger.Warn("connections to tasks that have left could not be cut", "error", err)
			}
		}
		if v.inForce.Swap(version) != version {
			token(v.applied)
		}
	}
}

// keepRecord records what is new. That the disk refuses it is no reason to hold up what others wait for.
func (v *Overlay) keepRecord(retry *alarm) {
	refused := retry.timer != nil
	retry.stop()
	err := v.recordEndpoints()
	if err == nil {
		return
	}
	retry.set(recordRetry)
	if !refused {
		v.Logger.Error("if the agent is killed, the next will begin with older endpoints; trying again", "error", err)
	}
}

// keepPorts reserves the published ports, and has those left alone that other programs have: where there are others
// now, or it may be other programs that have them.
func (v *Overlay) keepPorts(others bool) error {
	ports, changed := v.catalog.Published()
	if !changed && !others {
		return nil
	}
	var wanted []port.Port
	for _, p := range ports {
		wanted = append(wanted, reserved(p))
	}
	if err := v.ports.Set(wanted); err != nil {
		return err
	}
	var taken []catalog.Port
	var told []*warrenv1.TakenPort
	for _, t := range v.ports.Taken() {
		protocol := warrenv1.Protocol(warrenv1.Protocol_value["PROTOCOL_"+strings.ToUpper(string(t.Port.Protocol))])
		taken = append(taken, catalog.Port{Protocol: protocol, Number: uint32(t.Port.Number)})
		by := t.By
		if t.Err != nil {
			by = t.Err.Error()
		}
		if len(told) < maxTaken {
			told = append(told, &warrenv1.TakenPort{Protocol: protocol, Port: uint32(t.Port.Number), By: head(by, maxProgram)})
		}
	}
	v.catalog.Taken(taken)
	v.mu.Lock()
	v.taken = told
	stands := v.status != nil
	v.mu.Unlock()
	if stands { // else it is told with the first word of how the network stands, without which the others would lose a peer
		v.report(func(*warrenv1.OverlayStatus) {})
	}
	return nil
}

// As many taken ports are told to managers, in so many bytes each.
const (
	maxTaken   = 1000
	maxProgram = 200
)

func reserved(p catalog.Port) port.Port {
	protocol := port.TCP
	if p.Protocol == warrenv1.Protocol_PROTOCOL_UDP {
		protocol = port.UDP
	}
	return port.Port{Protocol: protocol, Number: uint16(p.Number)}
}
