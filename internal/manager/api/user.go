package api

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// defaultUserLife is how long a user's certificates are good unless something else is asked for. Longer
// than a member's: a person may be away, and only a program that is used renews its certificate.
const defaultUserLife = 365 * 24 * time.Hour

// userService admits people and programs.
type userService struct {
	warrenv1connect.UnimplementedUserServiceHandler
	store      *state.Store
	write      writer
	authority  *authority.Authority
	membership Membership
}

var _ warrenv1connect.UserServiceHandler = (*userService)(nil)

// CreateUser implements warrenv1connect.UserServiceHandler.
func (h *userService) CreateUser(ctx context.Context, req *connect.Request[warrenv1.CreateUserRequest]) (*connect.Response[warrenv1.CreateUserResponse], error) {
	name, role, life := req.Msg.GetName(), req.Msg.GetRole(), defaultUserLife
	if asked := req.Msg.GetLife(); asked != nil {
		life = asked.AsDuration()
	}
	grant, err := h.authority.IssueToUser(name, role, req.Msg.GetCertificate(), life, time.Now())
	if err != nil {
		return nil, err
	}
	err = h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		if s.User(name) != nil {
			return problemf(connect.CodeAlreadyExists, "user %s already exists: `warrenctl user rm %s` ends its access, then it can be made anew", name, name)
		}
		t.Create(&warrenv1.User{
			Meta: &warrenv1.Meta{Id: name}, Role: role, KeyDigest: grant.KeyDigest,
			CertificateExpiresAt: timestamppb.New(grant.Expires), Life: durationpb.New(life),
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	s := h.store.Snapshot()
	return connect.NewResponse(&warrenv1.CreateUserResponse{
		User: s.User(name), Certificate: grant.Certificate, Roots: grant.Roots,
		Managers: h.membership.Addrs(), ClusterId: grant.Identity.Cluster, ClusterName: s.Cluster().GetSpec().GetName(),
	}), nil
}

// ListUsers implements warrenv1connect.UserServiceHandler.
func (h *userService) ListUsers(context.Context, *connect.Request[warrenv1.ListUsersRequest]) (*connect.Response[warrenv1.ListUsersResponse], error) {
	return connect.NewResponse(&warrenv1.ListUsersResponse{Users: slices.Collect(h.store.Snapshot().Users())}), nil
}

// DeleteUser implements warrenv1connect.UserServiceHandler.
func (h *userService) DeleteUser(ctx context.Context, req *connect.Request[warrenv1.DeleteUserRequest]) (*connect.Response[warrenv1.DeleteUserResponse], error) {
	var gone *warrenv1.User
	err := h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		if gone = s.User(req.Msg.GetName()); gone == nil {
			return problemf(connect.CodeNotFound, "no user named %q: `warrenctl user ls` lists them", req.Msg.GetName())
		}
		t.Delete(gone)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.DeleteUserResponse{User: gone}), nil
}

// renew gives a user a new certificate for the name, role and key it has.
func (h *userService) renew(ctx context.Context, who caller.Caller, request *warrenv1.CertificateRequest) (*warrenv1.RenewResponse, error) {
	if who.Local {
		return nil, problemf(connect.CodeFailedPrecondition, "%s needs no certificate: there is nothing to renew", who)
	}
	known := h.store.Snapshot().User(who.Name)
	if known == nil {
		return nil, authority.ErrUserRemoved
	}
	grant, err := h.authority.IssueToUser(who.Name, known.GetRole(), request, known.GetLife().AsDuration(), time.Now())
	if err != nil {
		return nil, err
	}
	err = h.write.do(ctx, func(s state.Snapshot, t *state.Transaction) error {
		now := s.User(who.Name)
		if now == nil || now.GetRole() != known.GetRole() {
			return authority.ErrUserRemoved
		}
		if subtle.ConstantTimeCompare(now.GetKeyDigest(), grant.KeyDigest) != 1 {
			return problemf(connect.CodePermissionDenied, "certificates of user %s are for the key it was made with, not for another: "+
				"for a new key an administrator removes the user and makes it anew", who.Name)
		}
		state.Update(t, now, func(after *warrenv1.User) { after.CertificateExpiresAt = timestamppb.New(grant.Expires) })
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("renew the certificate of user %s: %w", who.Name, err)
	}
	return &warrenv1.RenewResponse{
		Certificate: grant.Certificate, Roots: grant.Roots, Bridge: grant.Bridge, Managers: h.membership.Addrs(),
	}, nil
}

// isUser tells whether a role is one that people and programs have, not machines.
func isUser(r warrenv1.Role) bool {
	switch r {
	case warrenv1.Role_ROLE_VIEWER, warrenv1.Role_ROLE_OPERATOR, warrenv1.Role_ROLE_ADMIN:
		return true
	}
	return false
}
