package fakemanager

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// trustService replaces the CA of a cluster of the manager m1 and its nodes, which renew when Renew says so.
type trustService struct {
	warrenv1connect.UnimplementedTrustServiceHandler
	m *Manager
}

// authorityNumber returns a CA of that number.
func authorityNumber(n int) *warrenv1.CertificateAuthority {
	made := time.Date(2026, 11, n, 10, 0, 0, 0, time.UTC)
	return &warrenv1.CertificateAuthority{
		Digest: strings.Repeat(string(rune('a'+n-1)), 52), Certificate: fmt.Appendf(nil, "CA %d", n),
		CreatedAt: timestamppb.New(made), ExpiresAt: timestamppb.New(made.AddDate(20, 0, 0)),
	}
}

// trusted returns how the CAs stand. The caller holds m.mu.
func (m *Manager) trusted() *warrenv1.Trust {
	if m.trust == nil {
		m.trust = &warrenv1.Trust{Authorities: []*warrenv1.CertificateAuthority{authorityNumber(1)}}
	}
	return m.trust
}

// Renew has a member renew its certificate. When the last has, the old CA is forgotten.
func (m *Manager) Renew(hostname string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trusted()
	t.Pending = slices.DeleteFunc(t.Pending, func(p *warrenv1.PendingMember) bool { return p.GetHostname() == hostname })
	if t.Renewed++; len(t.Pending) == 0 {
		m.trust = &warrenv1.Trust{Authorities: t.Authorities[:1]}
	}
	m.bump()
}

// Lose has a member that has not renewed be down.
func (m *Manager) Lose(hostname string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.trusted().GetPending() {
		p.Down = p.GetDown() || p.GetHostname() == hostname
	}
	m.bump()
}

func (h trustService) RotateCA(context.Context, *connect.Request[warrenv1.RotateCARequest]) (*connect.Response[warrenv1.RotateCAResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	if t := h.m.trusted(); len(t.GetAuthorities()) == 1 {
		h.m.trust = &warrenv1.Trust{
			Authorities:       []*warrenv1.CertificateAuthority{authorityNumber(t.GetAuthorities()[0].GetCreatedAt().AsTime().Day() + 1), t.GetAuthorities()[0]},
			Pending:           []*warrenv1.PendingMember{{Role: warrenv1.Role_ROLE_MANAGER, Id: "manager1", Hostname: "m1"}},
			RotationStartedAt: timestamppb.Now(),
		}
		for _, n := range h.m.nodes {
			h.m.trust.Pending = append(h.m.trust.Pending, &warrenv1.PendingMember{Role: warrenv1.Role_ROLE_AGENT, Id: n.GetMeta().GetId(), Hostname: n.GetFacts().GetHostname()})
		}
		h.m.bump()
	}
	return connect.NewResponse(&warrenv1.RotateCAResponse{Trust: proto.CloneOf(h.m.trust)}), nil
}

func (h trustService) WatchTrust(ctx context.Context, _ *connect.Request[warrenv1.WatchTrustRequest], stream *connect.ServerStream[warrenv1.WatchTrustResponse]) error {
	for {
		changed, cut := h.m.wait()
		h.m.mu.Lock()
		err := h.m.initialised()
		t := proto.CloneOf(h.m.trusted())
		h.m.mu.Unlock()
		if err != nil {
			return err
		}
		if err := stream.Send(&warrenv1.WatchTrustResponse{Trust: t}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-cut:
			return streamEnd(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}
