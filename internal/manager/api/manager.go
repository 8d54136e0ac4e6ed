package api

import (
	"context"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Addresses are where a manager is to listen and how others reach it, each host:port; empty as it is.
type Addresses struct{ Listen, Advertise string }

// Local is what can be asked of this manager alone, by those who administer its machine.
type Local interface {
	// Join makes it one of a cluster's managers, and returns when it votes.
	Join(ctx context.Context, token string, managers []string, given Addresses) error
	// Leave takes it out of its cluster and forgets that.
	Leave(ctx context.Context, force bool) error
	// Recover makes it the only manager of its cluster.
	Recover(ctx context.Context, force bool) error
	// Stand tells how it stands.
	Stand() *warrenv1.GetManagerResponse
	Locker
	Restorer
}

// managerService answers about this manager.
type managerService struct {
	warrenv1connect.UnimplementedManagerServiceHandler
	local Local
}

var _ warrenv1connect.ManagerServiceHandler = (*managerService)(nil)

// JoinManager implements warrenv1connect.ManagerServiceHandler.
func (h *managerService) JoinManager(ctx context.Context, req *connect.Request[warrenv1.JoinManagerRequest]) (*connect.Response[warrenv1.JoinManagerResponse], error) {
	given := Addresses{Listen: req.Msg.GetListenAddr(), Advertise: req.Msg.GetAdvertiseAddr()}
	if err := h.local.Join(ctx, req.Msg.GetToken(), req.Msg.GetManagers(), given); err != nil {
		return nil, err
	}
	now := h.local.Stand()
	return connect.NewResponse(&warrenv1.JoinManagerResponse{ClusterId: now.GetClusterId(), ManagerId: now.GetId()}), nil
}

// LeaveManager implements warrenv1connect.ManagerServiceHandler.
func (h *managerService) LeaveManager(ctx context.Context, req *connect.Request[warrenv1.LeaveManagerRequest]) (*connect.Response[warrenv1.LeaveManagerResponse], error) {
	if err := h.local.Leave(ctx, req.Msg.GetForce()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.LeaveManagerResponse{}), nil
}

// RecoverManager implements warrenv1connect.ManagerServiceHandler.
func (h *managerService) RecoverManager(ctx context.Context, req *connect.Request[warrenv1.RecoverManagerRequest]) (*connect.Response[warrenv1.RecoverManagerResponse], error) {
	if err := h.local.Recover(ctx, req.Msg.GetForce()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.RecoverManagerResponse{}), nil
}

// UnlockManager implements warrenv1connect.ManagerServiceHandler. The manager is not locked, or it would not
// be asked here.
func (h *managerService) UnlockManager(_ context.Context, req *connect.Request[warrenv1.UnlockManagerRequest]) (*connect.Response[warrenv1.UnlockManagerResponse], error) {
	if err := unlock(h.local, req.Msg); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.UnlockManagerResponse{}), nil
}

// RestoreManager implements warrenv1connect.ManagerServiceHandler.
func (h *managerService) RestoreManager(ctx context.Context, stream *connect.ClientStream[warrenv1.RestoreManagerRequest]) (*connect.Response[warrenv1.RestoreManagerResponse], error) {
	return restoreManager(ctx, stream, h.local)
}

// GetManager implements warrenv1connect.ManagerServiceHandler.
func (h *managerService) GetManager(context.Context, *connect.Request[warrenv1.GetManagerRequest]) (*connect.Response[warrenv1.GetManagerResponse], error) {
	return connect.NewResponse(h.local.Stand()), nil
}
