package api_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// auditFile is an audit log in memory.
type auditFile struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (f *auditFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.b.Write(p)
}

func (f *auditFile) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.b.String()
}

func encoded(v any) string {
	text, _ := json.Marshal(v)
	return base64.StdEncoding.EncodeToString(text)
}

// openUp lets every account reach a file in a folder of a test's.
func openUp(path string) error {
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func TestAUserIsAdmittedWithACertificateForItsOwnKeyAndRenewsIt(t *testing.T) {
	r := serveTLS(t)
	root := warrenv1connect.NewUserServiceClient(r.locally(nil), "http://manager")
	key := newKey(t)
	made, err := root.CreateUser(t.Context(), connect.NewRequest(&warrenv1.CreateUserRequest{
		Name: "vera", Role: warrenv1.Role_ROLE_VIEWER, Certificate: request(t, key),
	}))
	if err != nil {
		t.Fatal(err)
	}
	mine, err := pki.New(key, made.Msg.GetCertificate(), made.Msg.GetRoots(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if who := mine.Identity(); who.Name != "vera" || who.Role != warrenv1.Role_ROLE_VIEWER || who.Cluster != made.Msg.GetClusterId() {
		t.Errorf("the certificate is for %+v", who)
	}
	if left := time.Until(mine.NotAfter()); left < 364*24*time.Hour || left > 366*24*time.Hour {
		t.Errorf("it is good for %v", left)
	}
	if made.Msg.GetClusterName() != "test" || len(made.Msg.GetManagers()) != 1 || !made.Msg.GetUser().GetCertificateExpiresAt().AsTime().Truncate(time.Second).Equal(mine.NotAfter()) {
		t.Errorf("answered %v", made.Msg)
	}

	h := r.overTLS(mine)
	if _, err := warrenv1connect.NewNodeServiceClient(h, r.url()).ListNodes(t.Context(), connect.NewRequest(&warrenv1.ListNodesRequest{})); err != nil {
		t.Error(err)
	}
	members := warrenv1connect.NewMembershipServiceClient(h, r.url())
	renewed, err := members.Renew(t.Context(), connect.NewRequest(&warrenv1.RenewRequest{Certificate: request(t, key)}))
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.New(key, renewed.Msg.GetCertificate(), renewed.Msg.GetRoots(), renewed.Msg.GetBridge())
	if err != nil || again.Identity() != mine.Identity() || len(renewed.Msg.GetManagers()) != 1 {
		t.Errorf("renewed %v, %v", again.Identity(), err)
	}
	if kept := r.store.Snapshot().User("vera"); kept.GetCertificateExpiresAt().AsTime().Before(made.Msg.GetUser().GetCertificateExpiresAt().AsTime()) {
		t.Errorf("the state says it expires at %v", kept.GetCertificateExpiresAt().AsTime())
	}
	_, err = members.Renew(t.Context(), connect.NewRequest(&warrenv1.RenewRequest{Certificate: request(t, newKey(t))}))
	refused(t, err, connect.CodePermissionDenied, "are for the key it was made with")
}

func TestUsersAreListedByNameAndTakenOnce(t *testing.T) {
	r := serveTLS(t)
	r.user(warrenv1.Role_ROLE_VIEWER, "vera")
	r.user(warrenv1.Role_ROLE_ADMIN, "anna")
	root := warrenv1connect.NewUserServiceClient(r.locally(nil), "http://manager")
	listed, err := root.ListUsers(t.Context(), connect.NewRequest(&warrenv1.ListUsersRequest{}))
	if err != nil || len(listed.Msg.GetUsers()) != 2 || listed.Msg.GetUsers()[0].GetMeta().GetId() != "anna" {
		t.Errorf("got %v, %v", listed, err)
	}
	_, err = root.CreateUser(t.Context(), connect.NewRequest(&warrenv1.CreateUserRequest{
		Name: "vera", Role: warrenv1.Role_ROLE_ADMIN, Certificate: request(t, newKey(t)),
	}))
	refused(t, err, connect.CodeAlreadyExists, "warrenctl user rm vera")
}

func TestARemovedUserIsOutAtOnceAndItsNameIsFree(t *testing.T) {
	r := serveTLS(t)
	vera := r.user(warrenv1.Role_ROLE_VIEWER, "vera")
	root := warrenv1connect.NewUserServiceClient(r.locally(nil), "http://manager")
	nodes := warrenv1connect.NewNodeServiceClient(r.overTLS(vera), r.url())
	list := func() error {
		_, err := nodes.ListNodes(t.Context(), connect.NewRequest(&warrenv1.ListNodesRequest{}))
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	if _, err := root.DeleteUser(t.Context(), connect.NewRequest(&warrenv1.DeleteUserRequest{Name: "vera"})); err != nil {
		t.Fatal(err)
	}
	refused(t, list(), connect.CodeUnauthenticated, "warrenctl user create")
	_, err := warrenv1connect.NewMembershipServiceClient(r.overTLS(vera), r.url()).Renew(t.Context(), connect.NewRequest(&warrenv1.RenewRequest{Certificate: request(t, vera.Key())}))
	refused(t, err, connect.CodeUnauthenticated)
	_, err = root.DeleteUser(t.Context(), connect.NewRequest(&warrenv1.DeleteUserRequest{Name: "vera"}))
	refused(t, err, connect.CodeNotFound, "warrenctl user ls")

	// Somebody else of that name does not bring the old certificate back.
	if _, err := root.CreateUser(t.Context(), connect.NewRequest(&warrenv1.CreateUserRequest{
		Name: "vera", Role: warrenv1.Role_ROLE_VIEWER, Certificate: request(t, newKey(t)),
	})); err != nil {
		t.Fatal(err)
	}
	refused(t, list(), connect.CodeUnauthenticated)
}

func TestBadRequestsForUsersAreRefusedWithTheReason(t *testing.T) {
	r := serveTLS(t)
	root := warrenv1connect.NewUserServiceClient(r.locally(nil), "http://manager")
	good := func() *warrenv1.CreateUserRequest {
		return &warrenv1.CreateUserRequest{Name: "vera", Role: warrenv1.Role_ROLE_VIEWER, Certificate: request(t, newKey(t))}
	}
	for _, c := range []struct {
		name string
		edit func(*warrenv1.CreateUserRequest)
		code connect.Code
		word string
	}{
		{"a name with capitals", func(q *warrenv1.CreateUserRequest) { q.Name = "Vera" }, connect.CodeInvalidArgument, "name"},
		{"a machine's role", func(q *warrenv1.CreateUserRequest) { q.Role = warrenv1.Role_ROLE_MANAGER }, connect.CodeInvalidArgument, "role"},
		{"a life of a second", func(q *warrenv1.CreateUserRequest) { q.Life = durationpb.New(time.Second) }, connect.CodeInvalidArgument, "life"},
		{"no request", func(q *warrenv1.CreateUserRequest) { q.Certificate = nil }, connect.CodeInvalidArgument, "certificate"},
		{"a key that is not held", func(q *warrenv1.CreateUserRequest) { q.Certificate.Proof = []byte("x") }, connect.CodeInvalidArgument, "proof"},
		{"an old request", func(q *warrenv1.CreateUserRequest) {
			old, err := pki.NewRequest(newKey(t), time.Now().Add(-time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			q.Certificate = old
		}, connect.CodeFailedPrecondition, "NTP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := good()
			c.edit(q)
			_, err := root.CreateUser(t.Context(), connect.NewRequest(q))
			refused(t, err, c.code, c.word)
		})
	}
	for range r.store.Snapshot().Users() {
		t.Error("a refused user was stored")
	}
}

func TestAUsersCertificateNeverOutlivesItsIssuer(t *testing.T) {
	r := serveTLS(t)
	grant, err := r.authority.IssueToUser("vera", warrenv1.Role_ROLE_VIEWER, request(t, newKey(t)), 100*365*24*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(grant.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(grant.Roots[0])
	if err != nil || leaf.NotAfter.After(ca.NotAfter) {
		t.Errorf("%v is after %v (%v)", leaf.NotAfter, ca.NotAfter, err)
	}
}

func TestRootOnTheMachineHasNoCertificateToRenew(t *testing.T) {
	r := serveTLS(t)
	_, err := warrenv1connect.NewMembershipServiceClient(r.locally(nil), "http://manager").Renew(t.Context(), connect.NewRequest(&warrenv1.RenewRequest{Certificate: request(t, newKey(t))}))
	refused(t, err, connect.CodeFailedPrecondition, "nothing to renew")
}

func TestTheAuditLogTellsWritesAndRefusalsOfEverybody(t *testing.T) {
	r := serveTLS(t)
	vera := r.user(warrenv1.Role_ROLE_VIEWER, "vera")
	create := func(c warrenv1connect.ServiceServiceClient, name string) {
		_, _ = c.CreateService(t.Context(), connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: proto.CloneOf(spec(name))}))
	}
	create(warrenv1connect.NewServiceServiceClient(r.locally(nil), "http://manager"), "web")
	create(warrenv1connect.NewServiceServiceClient(r.locally(nil), "http://manager"), "Not a name")
	create(warrenv1connect.NewServiceServiceClient(r.overTLS(vera), r.url()), "db")
	create(warrenv1connect.NewServiceServiceClient(r.overTLS(nil), r.url()), "evil")
	create(warrenv1connect.NewServiceServiceClient(r.overTLS(foreign(t)), r.url()), "evil")
	lines := strings.Split(strings.TrimSpace(r.audit.String()), "\n")
	want := [][]string{
		{`"outcome":"ok"`, `"role":"admin"`, `"local":true`, `"object":"web"`, `"version":`},
		{`"outcome":"invalid_argument"`, `"object":"Not a name"`, "spec.name"},
		{`"outcome":"permission_denied"`, `"role":"viewer","name":"vera","addr":"127.0.0.1:`, `"object":"db"`, "that takes operator or admin"},
		{`"outcome":"unauthenticated"`, `"role":"anonymous","addr":"127.0.0.1:`, "no certificate was shown"},
		{`"outcome":"unauthenticated"`, `"role":"anonymous","addr":"127.0.0.1:`, "not issued by this cluster"},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), r.audit)
	}
	for i, words := range want {
		for _, w := range words {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %d does not say %s: %s", i+1, w, lines[i])
			}
		}
	}
}
