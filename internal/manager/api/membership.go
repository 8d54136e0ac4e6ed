package api

import (
	"context"
	"crypto/x509"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/authority"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// membershipService makes machines members and keeps their certificates fresh.
type membershipService struct {
	authority  *authority.Authority
	membership Membership
	users      *userService
	renewed    func(node string, expires time.Time) // nil for nobody to be told
}

var _ warrenv1connect.MembershipServiceHandler = (*membershipService)(nil)

// Join implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) Join(_ context.Context, req *connect.Request[warrenv1.JoinRequest]) (*connect.Response[warrenv1.JoinResponse], error) {
	grant, err := h.authority.Join(req.Msg.GetToken(), req.Msg.GetCertificate(), time.Now())
	if err != nil {
		return nil, err
	}
	var key []byte
	if grant.Identity.Role == warrenv1.Role_ROLE_MANAGER {
		if key, err = h.authority.ShareKey(); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&warrenv1.JoinResponse{
		Certificate: grant.Certificate, Roots: grant.Roots, Bridge: grant.Bridge, ClusterKey: key,
		ClusterId: grant.Identity.Cluster, Name: grant.Identity.Name, Role: grant.Identity.Role,
		Managers: h.membership.Addrs(),
	}), nil
}

// Renew implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) Renew(ctx context.Context, req *connect.Request[warrenv1.RenewRequest]) (*connect.Response[warrenv1.RenewResponse], error) {
	who := caller.From(ctx)
	if isUser(who.Role) {
		res, err := h.users.renew(ctx, who, req.Msg.GetCertificate())
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(res), nil
	}
	grant, err := h.authority.Renew(who.Role, who.Name, req.Msg.GetCertificate(), time.Now())
	if err != nil {
		return nil, err
	}
	if certificate, err := x509.ParseCertificate(grant.Certificate); err == nil && who.Role == warrenv1.Role_ROLE_AGENT && h.renewed != nil {
		h.renewed(who.Name, certificate.NotAfter)
	}
	return connect.NewResponse(&warrenv1.RenewResponse{
		Certificate: grant.Certificate, Roots: grant.Roots, Bridge: grant.Bridge, Managers: h.membership.Addrs(),
	}), nil
}

// GetJoinToken implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) GetJoinToken(ctx context.Context, req *connect.Request[warrenv1.GetJoinTokenRequest]) (*connect.Response[warrenv1.GetJoinTokenResponse], error) {
	token, expires, err := h.authority.Token(ctx, req.Msg.GetRole(), req.Msg.GetRotate(), req.Msg.GetTtl().AsDuration())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetJoinTokenResponse{
		Token: token.String(), ExpiresAt: timestamppb.New(expires), Managers: h.membership.Addrs(),
	}), nil
}

// EnlistManager implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) EnlistManager(ctx context.Context, req *connect.Request[warrenv1.EnlistManagerRequest]) (*connect.Response[warrenv1.EnlistManagerResponse], error) {
	who := caller.From(ctx)
	index, err := h.membership.Enlist(ctx, &statev1.Member{
		Meta: &warrenv1.Meta{Id: who.Name}, Hostname: req.Msg.GetHostname(), Addr: req.Msg.GetAddr(), Version: req.Msg.GetVersion(), Format: req.Msg.GetFormat(),
		Issuer: who.Issuer, CertificateExpiresAt: expiry(who),
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.EnlistManagerResponse{Index: index}), nil
}

// PromoteManager implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) PromoteManager(ctx context.Context, _ *connect.Request[warrenv1.PromoteManagerRequest]) (*connect.Response[warrenv1.PromoteManagerResponse], error) {
	if err := h.membership.Promote(ctx, caller.From(ctx).Name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.PromoteManagerResponse{}), nil
}

// AnnounceManager implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) AnnounceManager(ctx context.Context, req *connect.Request[warrenv1.AnnounceManagerRequest]) (*connect.Response[warrenv1.AnnounceManagerResponse], error) {
	err := h.membership.Announce(ctx, &statev1.Member{
		Meta: &warrenv1.Meta{Id: caller.From(ctx).Name}, Hostname: req.Msg.GetHostname(), Addr: req.Msg.GetAddr(), Version: req.Msg.GetVersion(), Format: req.Msg.GetFormat(),
		Issuer: req.Msg.GetIssuer(), CertificateExpiresAt: req.Msg.GetCertificateExpiresAt(),
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.AnnounceManagerResponse{}), nil
}

// DeleteManager implements warrenv1connect.MembershipServiceHandler.
func (h *membershipService) DeleteManager(ctx context.Context, req *connect.Request[warrenv1.DeleteManagerRequest]) (*connect.Response[warrenv1.DeleteManagerResponse], error) {
	who := caller.From(ctx)
	itself := who.Role == warrenv1.Role_ROLE_MANAGER
	if itself && req.Msg.GetRef() != who.Name {
		return nil, problemf(connect.CodePermissionDenied, "manager %s may take out itself alone", who.Name)
	}
	id, err := h.membership.Expel(ctx, req.Msg.GetRef(), req.Msg.GetForce(), itself)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.DeleteManagerResponse{Id: id}), nil
}

func expiry(who caller.Caller) *timestamppb.Timestamp {
	if who.Expires.IsZero() {
		return nil
	}
	return timestamppb.New(who.Expires)
}
