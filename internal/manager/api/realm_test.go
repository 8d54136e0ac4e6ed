package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/dispatch"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// realm is the API of a cluster with an authority of its own, behind real listeners: TLS on TCP, and a unix
// socket.
type realm struct {
	t         *testing.T
	store     *state.Store
	proposer  *statetest.Proposer
	authority *authority.Authority
	exchange  *relay.Exchange
	audit     *auditFile
	addr      string
	socket    string
}

// agents is what agents call.
type agents struct {
	*dispatch.Dispatcher
	*relay.Exchange
}

// serveTLS serves a cluster that is made of objects, beside the cluster's own.
func serveTLS(t *testing.T, objects ...state.Object) *realm {
	t.Helper()
	key := authority.NewKey()
	founded, err := authority.Found(statetest.ClusterID, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cluster := statetest.Cluster(func(c *warrenv1.Cluster) { c.Spec.CertificateLife = durationpb.New(30 * 24 * time.Hour) })
	r := &realm{t: t, store: statetest.New(t, append(objects, cluster, founded)...), audit: &auditFile{}}
	r.proposer = statetest.NewProposer(r.store)
	r.authority = authority.New(r.store, r.proposer)
	r.authority.SetKey(key)
	logger := slog.New(slog.DiscardHandler)
	dispatcher := dispatch.New(r.store, r.proposer, logger)
	r.exchange = relay.New(dispatcher)
	closing, end := context.WithCancel(context.Background())
	handler, err := api.New(api.Options{
		Store: r.store, Proposer: r.proposer, Membership: &member{}, Events: events.NewLog(), Authority: r.authority,
		Sessions: agents{dispatcher, r.exchange}, Logs: warrenv1connect.UnimplementedLogServiceHandler{}, Exchange: r.exchange,
		Closing: closing, Logger: logger, AuditFile: r.audit,
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // the last of all
	t.Cleanup(end)
	running.Go(func() { _ = dispatcher.Run(closing) })
	credentials := pki.NewHolder(r.member(warrenv1.Role_ROLE_MANAGER, "m1", time.Now()))
	r.socket = filepath.Join(t.TempDir(), "s")
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": r.socket} {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: caller.Identify(credentials, handler), ConnContext: caller.Connected, Protocols: new(http.Protocols)}
		server.Protocols.SetHTTP1(true)
		if network == "tcp" {
			r.addr = l.Addr().String()
			server.Protocols.SetHTTP2(true)
			server.TLSConfig = credentials.ServerConfig()
			server.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
			running.Go(func() { _ = server.ServeTLS(l, "", "") })
		} else {
			server.Protocols.SetUnencryptedHTTP2(true)
			running.Go(func() { _ = server.Serve(l) })
		}
		t.Cleanup(func() { server.Close() })
	}
	return r
}

// member returns the credentials of a machine as of a time.
func (r *realm) member(role warrenv1.Role, name string, now time.Time) *pki.Credentials {
	r.t.Helper()
	key := newKey(r.t)
	grant, err := r.authority.Issue(&key.PublicKey, role, name, now)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.credentials(key, grant)
}

// user admits a user and returns the credentials.
func (r *realm) user(role warrenv1.Role, name string) *pki.Credentials {
	r.t.Helper()
	key := newKey(r.t)
	grant, err := r.authority.IssueToUser(name, role, request(r.t, key), time.Hour, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	statetest.Put(r.t, r.store, &warrenv1.User{Meta: &warrenv1.Meta{Id: name}, Role: role, KeyDigest: grant.KeyDigest, Life: durationpb.New(time.Hour)})
	return r.credentials(key, grant.Grant)
}

func (r *realm) credentials(key *ecdsa.PrivateKey, grant authority.Grant) *pki.Credentials {
	r.t.Helper()
	c, err := pki.New(key, grant.Certificate, grant.Roots, grant.Bridge)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// write changes the state.
func (r *realm) write(build func(*state.Transaction, state.Snapshot)) {
	r.t.Helper()
	transaction := state.New(time.Now())
	build(transaction, r.store.Snapshot())
	statetest.Commit(r.t, r.proposer, transaction)
}

// overTLS returns a client that shows a certificate, or none.
func (r *realm) overTLS(c *pki.Credentials) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true} // what callers check is not the subject here
	if c != nil {
		config = pki.NewHolder(c).ClientConfig()
		config.InsecureSkipVerify, config.VerifyConnection = true, nil
	}
	transport := &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP2(true)
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// locally returns a client on the unix socket, where dial may be nil.
func (r *realm) locally(dial func(path string) (net.Conn, error)) *http.Client {
	if dial == nil {
		dial = func(path string) (net.Conn, error) { return net.Dial("unix", path) }
	}
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dial(r.socket) },
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (r *realm) url() string { return "https://" + r.addr }

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t *testing.T, key *ecdsa.PrivateKey) *warrenv1.CertificateRequest {
	t.Helper()
	asked, err := pki.NewRequest(key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return asked
}
