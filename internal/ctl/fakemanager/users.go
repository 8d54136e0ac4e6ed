package fakemanager

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// userLife is how long users' certificates are good unless something else is asked for.
const userLife = 365 * 24 * time.Hour

// passes are the manager's authority and its TLS listener, which serves the same API as the socket.
type passes struct {
	ca          *pki.CA
	bridge      []byte   // while ca replaces another
	roots       [][]byte // the first is ca's
	credentials *pki.Holder
	addr        string
	users       []*warrenv1.User
	issuedAgo   time.Duration
	renewals    int
	renewErr    error
}

// found makes the cluster's authority, an old one, so that certificates may be old too.
func (m *Manager) found() error {
	ca, err := pki.NewCA(m.cluster.GetMeta().GetId(), time.Now().Add(-2*365*24*time.Hour))
	if err != nil {
		return err
	}
	m.passes.ca, m.passes.roots = ca, [][]byte{ca.Certificate.Raw}
	return m.certify()
}

// certify gives the manager a certificate of the authority.
func (m *Manager) certify() error {
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	who := pki.Identity{Cluster: m.cluster.GetMeta().GetId(), Role: warrenv1.Role_ROLE_MANAGER, Name: "m1"}
	certificate, err := m.passes.ca.Issue(&key.PublicKey, who, time.Hour, time.Now())
	if err != nil {
		return err
	}
	c, err := pki.New(key, certificate, m.passes.roots, m.passes.bridge)
	if err == nil {
		m.passes.credentials.Set(c)
	}
	return err
}

// RotateCA begins to replace the authority; EndRotation forgets the old one.
func (m *Manager) RotateCA() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next, bridge, err := m.passes.ca.Successor(time.Now().Add(-365 * 24 * time.Hour))
	if err != nil {
		return err
	}
	m.passes.bridge = bridge
	m.passes.ca, m.passes.roots = next, [][]byte{next.Certificate.Raw, m.passes.ca.Certificate.Raw}
	return m.certify()
}

// EndRotation forgets the authority that was replaced.
func (m *Manager) EndRotation() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passes.roots, m.passes.bridge = m.passes.roots[:1], nil
	return m.certify()
}

// IssuedAgo lets certificates of users look as if they had been issued that long ago, but be good until then.
func (m *Manager) IssuedAgo(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passes.issuedAgo = d
}

// FailRenewals has renewals fail with a text, or succeed again where it is empty.
func (m *Manager) FailRenewals(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passes.renewErr = nil
	if text != "" {
		m.passes.renewErr = connect.NewError(connect.CodeUnavailable, errors.New(text))
	}
}

// Renewals is how many certificates were renewed.
func (m *Manager) Renewals() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.passes.renewals
}

// serveTLS serves the API on a TCP port of this machine.
func (m *Manager) serveTLS(handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.passes.addr = listener.Addr().String()
	m.remote = &http.Server{Handler: m.admit(handler), TLSConfig: m.passes.credentials.ServerConfig(), ErrorLog: discard}
	m.serving.Go(func() { _ = m.remote.ServeTLS(listener, "", "") }) // ends with Close
	return nil
}

type callerKey struct{}

// admit lets through whoever shows a certificate of a user that is known.
func (m *Manager) admit(next http.Handler) http.Handler {
	writer := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := m.verify(r.TLS.PeerCertificates)
		if err != nil {
			_ = writer.Write(w, r, connect.NewError(connect.CodeUnauthenticated, err)) // who has gone needs no answer
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
	})
}

func (m *Manager) verify(chain []*x509.Certificate) (pki.Identity, error) {
	if len(chain) == 0 {
		return pki.Identity{}, errors.New("no certificate was shown")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	who, err := m.passes.credentials.Get().Verify(chain, time.Now())
	if err == nil && m.user(who.Name) == nil {
		err = errors.New("this user is not known any more: an administrator makes a new one with `warrenctl user create`")
	}
	return who, err
}

func (m *Manager) user(name string) *warrenv1.User {
	for _, u := range m.passes.users {
		if u.GetMeta().GetId() == name {
			return u
		}
	}
	return nil
}

// issue gives a user a certificate and notes it down.
func (m *Manager) issue(u *warrenv1.User, request *warrenv1.CertificateRequest) ([]byte, error) {
	public, err := pki.Check(request, time.Now())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	digest, err := keyDigest(public)
	if err != nil {
		return nil, err
	}
	life := userLife
	if u.GetLife() != nil {
		life = u.GetLife().AsDuration()
	}
	issued := time.Now().Add(-m.passes.issuedAgo)
	who := pki.Identity{Cluster: m.cluster.GetMeta().GetId(), Role: u.GetRole(), Name: u.GetMeta().GetId()}
	certificate, err := m.passes.ca.Issue(public, who, life, issued)
	u.KeyDigest, u.CertificateExpiresAt = digest, timestamppb.New(issued.Add(life))
	return certificate, err
}

func keyDigest(public *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	sum := sha256.Sum256(der)
	return sum[:], err
}

type userService struct{ m *Manager }

func (h userService) CreateUser(_ context.Context, req *connect.Request[warrenv1.CreateUserRequest]) (*connect.Response[warrenv1.CreateUserResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	if h.m.user(req.Msg.GetName()) != nil {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("user %s already exists", req.Msg.GetName()))
	}
	meta := h.m.meta("user")
	meta.Id = req.Msg.GetName()
	u := &warrenv1.User{Meta: meta, Role: req.Msg.GetRole(), Life: req.Msg.GetLife()}
	certificate, err := h.m.issue(u, req.Msg.GetCertificate())
	if err != nil {
		return nil, err
	}
	h.m.passes.users = append(h.m.passes.users, u)
	return connect.NewResponse(&warrenv1.CreateUserResponse{
		User: proto.CloneOf(u), Certificate: certificate, Roots: h.m.passes.roots, Managers: []string{h.m.passes.addr},
		ClusterId: h.m.cluster.GetMeta().GetId(), ClusterName: h.m.cluster.GetSpec().GetName(),
	}), nil
}

func (h userService) ListUsers(context.Context, *connect.Request[warrenv1.ListUsersRequest]) (*connect.Response[warrenv1.ListUsersResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	res := &warrenv1.ListUsersResponse{}
	for _, u := range h.m.passes.users {
		res.Users = append(res.Users, proto.CloneOf(u))
	}
	return connect.NewResponse(res), h.m.initialised()
}

func (h userService) DeleteUser(_ context.Context, req *connect.Request[warrenv1.DeleteUserRequest]) (*connect.Response[warrenv1.DeleteUserResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	u := h.m.user(req.Msg.GetName())
	if u == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no user named %q", req.Msg.GetName()))
	}
	h.m.passes.users = slices.DeleteFunc(h.m.passes.users, func(other *warrenv1.User) bool { return other == u })
	return connect.NewResponse(&warrenv1.DeleteUserResponse{User: u}), nil
}

type membershipService struct {
	warrenv1connect.UnimplementedMembershipServiceHandler
	m *Manager
}

func (h membershipService) Renew(ctx context.Context, req *connect.Request[warrenv1.RenewRequest]) (*connect.Response[warrenv1.RenewResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	who, _ := ctx.Value(callerKey{}).(pki.Identity)
	u := h.m.user(who.Name)
	switch {
	case u == nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("there is nothing to renew"))
	case h.m.passes.renewErr != nil:
		return nil, h.m.passes.renewErr
	}
	h.m.passes.renewals++
	certificate, err := h.m.issue(u, req.Msg.GetCertificate())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.RenewResponse{
		Certificate: certificate, Roots: h.m.passes.roots, Bridge: h.m.passes.bridge, Managers: []string{h.m.passes.addr},
	}), nil
}
