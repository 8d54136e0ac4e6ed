package api

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/planning"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// RebalanceService implements warrenv1connect.ServiceServiceHandler. It marks the tasks that are to be moved; the
// rollout loop moves them.
func (h *serviceService) RebalanceService(ctx context.Context, req *connect.Request[warrenv1.RebalanceServiceRequest]) (*connect.Response[warrenv1.RebalanceServiceResponse], error) {
	var service *warrenv1.Service
	var moving int
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) (err error) {
		if service, err = changeable(s, req.Msg.GetRef()); err != nil {
			return err
		}
		name := service.GetSpec().GetName()
		if service.GetSpec().GetGlobal() != nil {
			return Refuse("service %s is global, which means one task on every node that its placement allows: there is nothing to balance", name)
		}
		if underway(service.GetRollout()) || outdated(s, service) {
			return Refuse("tasks of service %s are being replaced by those of revision %d, and are placed anew by that: rebalance it when `warrenctl service ps %s` shows that it is done",
				name, service.GetRevision(), name)
		}
		// Of very many the rest is for the next call.
		moves := planning.Rebalance(s, service, time.Now(), loop.MaxOperations-1)
		moving = moves.Moving + len(moves.Tasks)
		for _, task := range moves.Tasks {
			state.Update(t, task, func(task *warrenv1.Task) { task.Displaced = true })
		}
		if len(moves.Tasks) > 0 {
			t.Check(service)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.RebalanceServiceResponse{Service: reread(h.store.Snapshot(), service), Moving: uint32(moving)}), nil
}

// outdated tells whether a service has tasks of another revision than the current one.
func outdated(s state.Snapshot, service *warrenv1.Service) bool {
	for t := range s.TasksByService(service.GetMeta().GetId()) {
		if lifecycle.Wanted(t) && t.GetRevision() != service.GetRevision() {
			return true
		}
	}
	return false
}
