package overlay

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/addressing"
	"github.com/cuemby/warren/internal/manager/rollout/shares"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// DefaultNetwork is the network of services that name none.
const DefaultNetwork = "default"

// Front is how a service is reached; nil of one that is not on the overlay.
func Front(s *warrenv1.Service) *warrenv1.ServiceFront {
	if s == nil || !addressing.OnOverlay(s.GetSpec().GetTask()) {
		return nil
	}
	f := &warrenv1.ServiceFront{
		ServiceId: s.GetMeta().GetId(), ServiceName: s.GetSpec().GetName(),
		Vip: s.GetEndpoint().GetVip(), Ports: s.GetEndpoint().GetPorts(), Networks: s.GetSpec().GetNetworks(),
		Shares: shares.Of(s), HostPorts: s.GetSpec().GetTask().GetHostPorts(),
	}
	if len(f.Networks) == 0 {
		f.Networks = []*warrenv1.NetworkAttachment{{Network: DefaultNetwork}}
	}
	return f
}

// FrontNews tells whether a change of a service has any bearing on its front.
func FrontNews(before, after *warrenv1.Service) bool {
	if before == nil || after == nil {
		return true
	}
	samePort := func(a, b *warrenv1.PortSpec) bool { return proto.Equal(a, b) }
	return before.GetEndpoint() != after.GetEndpoint() && !proto.Equal(before.GetEndpoint(), after.GetEndpoint()) ||
		!slices.EqualFunc(before.GetSpec().GetNetworks(), after.GetSpec().GetNetworks(), func(a, b *warrenv1.NetworkAttachment) bool { return proto.Equal(a, b) }) ||
		!slices.EqualFunc(shares.Of(before), shares.Of(after), func(a, b *warrenv1.RevisionShare) bool { return proto.Equal(a, b) }) ||
		!slices.EqualFunc(before.GetSpec().GetTask().GetHostPorts(), after.GetSpec().GetTask().GetHostPorts(), samePort) ||
		addressing.OnOverlay(before.GetSpec().GetTask()) != addressing.OnOverlay(after.GetSpec().GetTask())
}

// Endpoint is where a task is found on the overlay; nil where it is not.
func Endpoint(t *warrenv1.Task) *warrenv1.TaskEndpoint {
	if t.GetStatus().GetAddress() == "" || lifecycle.Ended(t.GetStatus().GetState()) {
		return nil
	}
	return &warrenv1.TaskEndpoint{
		TaskId: t.GetMeta().GetId(), ServiceId: t.GetServiceId(), Slot: t.GetSlot(), NodeId: t.GetNodeId(),
		Address: t.GetStatus().GetAddress(), Serving: Serving(t), Withdrawn: !lifecycle.Wanted(t),
		Revision: t.GetRevision(),
	}
}

// Lost is what a lost task's own node is told of it: that node, which may merely have been cut off, goes by what it sees of its
// own tasks, and must not send connections to one that has been replaced. nil of any other task.
func Lost(t *warrenv1.Task) *warrenv1.TaskEndpoint {
	if t.GetStatus().GetState() != warrenv1.TaskState_TASK_STATE_LOST {
		return nil
	}
	return &warrenv1.TaskEndpoint{
		TaskId: t.GetMeta().GetId(), ServiceId: t.GetServiceId(), Slot: t.GetSlot(), NodeId: t.GetNodeId(),
		Address: t.GetStatus().GetAddress(), Withdrawn: true, Revision: t.GetRevision(),
	}
}

// Serving tells whether new connections may go to a task: it takes them, and is wanted to.
func Serving(t *warrenv1.Task) bool {
	return lifecycle.Wanted(t) && Open(t)
}

// Open tells whether a task takes connections, wanted or not.
func Open(t *warrenv1.Task) bool {
	s := t.GetStatus()
	return s.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING && s.GetServing() && s.GetAddress() != ""
}

// EndpointNews tells whether a change of a task has any bearing on its endpoint.
func EndpointNews(before, after *warrenv1.Task) bool {
	if before.GetStatus().GetAddress() == "" && after.GetStatus().GetAddress() == "" {
		return false
	}
	b, a := Endpoint(before), Endpoint(after)
	return (b == nil) != (a == nil) || b.GetServing() != a.GetServing() || b.GetWithdrawn() != a.GetWithdrawn() || b.GetAddress() != a.GetAddress()
}
