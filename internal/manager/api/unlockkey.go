package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/keyring"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// GetUnlockKey implements warrenv1connect.TrustServiceHandler.
func (h *trustService) GetUnlockKey(ctx context.Context, req *connect.Request[warrenv1.GetUnlockKeyRequest]) (*connect.Response[warrenv1.GetUnlockKeyResponse], error) {
	key, err := h.authority.UnlockKey(ctx, req.Msg.GetRotate())
	if errors.Is(err, authority.ErrNoAutolock) {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetUnlockKeyResponse{Key: key.Text()}), nil
}

// Locker is what has to be unlocked; *keyring.Ring is one.
type Locker interface {
	// Unlock fails with keyring.ErrNotLocked, keyring.ErrWrongKey or keyring.ErrEarly.
	Unlock(k unlockkey.Key) error
}

// unlock is UnlockManager for that lock.
func unlock(l Locker, req *warrenv1.UnlockManagerRequest) error {
	key, err := unlockkey.Parse(req.GetKey())
	if err == nil {
		err = l.Unlock(key)
	}
	switch {
	case errors.Is(err, unlockkey.ErrMalformed):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, keyring.ErrNotLocked):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, keyring.ErrWrongKey):
		return connect.NewError(connect.CodePermissionDenied, err)
	case errors.Is(err, keyring.ErrEarly):
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	return err
}
