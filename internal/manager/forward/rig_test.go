package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// rig is a cluster of managers that do nothing but answer, each behind its Forwarder and a TLS listener.
type rig struct {
	tb testing.TB
	ca *pki.CA
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	ca, err := pki.NewCA("c1", time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return &rig{tb, ca}
}

func (r *rig) credentials(role warrenv1.Role, name string) *pki.Credentials {
	r.tb.Helper()
	key, err := pki.NewKey()
	if err != nil {
		r.tb.Fatal(err)
	}
	cert, err := r.ca.Issue(&key.PublicKey, pki.Identity{Cluster: "c1", Role: role, Name: name}, time.Hour, time.Now())
	if err != nil {
		r.tb.Fatal(err)
	}
	c, err := pki.New(key, cert, [][]byte{r.ca.Certificate.Raw}, nil)
	if err != nil {
		r.tb.Fatal(err)
	}
	return c
}

// manager is one of them.
type manager struct {
	*api
	addr      string
	holder    *pki.Holder
	lead      *leadership
	forwarder *Forwarder
	server    *http.Server
	served    chan struct{}
	stop      context.CancelFunc
	follows   sync.WaitGroup
	conns     atomic.Int64 // that were ever opened to it
}

func (r *rig) manager(name string) *manager {
	r.tb.Helper()
	listener, err := new(net.ListenConfig).Listen(r.tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.tb.Fatal(err)
	}
	m := &manager{
		api: &api{name: name, seen: make(chan caller.Caller, 10_000)}, addr: listener.Addr().String(),
		holder: pki.NewHolder(r.credentials(warrenv1.Role_ROLE_MANAGER, name)), lead: newLeadership(), served: make(chan struct{}),
	}
	m.forwarder = New(Options{Handler: m.handler(), Leadership: m.lead, Credentials: m.holder, Logger: slog.New(slog.DiscardHandler)})
	m.server = &http.Server{
		Handler: caller.Identify(m.holder, m.forwarder), TLSConfig: m.holder.ServerConfig(), Protocols: new(http.Protocols),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 10_000},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			m.conns.Add(1)
			if t, ok := c.(*tls.Conn); ok {
				return caller.Connected(ctx, t)
			}
			return caller.Connected(ctx, c)
		},
	}
	m.server.Protocols.SetHTTP1(true)
	m.server.Protocols.SetHTTP2(true)
	go func() {
		defer close(m.served)
		_ = m.server.ServeTLS(listener, "", "") // ends with kill
	}()
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.follows.Go(func() { m.forwarder.Run(ctx) })
	r.tb.Cleanup(m.kill)
	return m
}

// kill ends a manager as kill -9 does, as far as others can see.
func (m *manager) kill() {
	_ = m.server.Close()
	<-m.served
	m.stop()
	m.follows.Wait()
	m.forwarder.Close()
}

// leader is the manager, as the others know it when it leads.
func (m *manager) leader() Leader { return Leader{ID: m.name, Addr: m.addr, Since: time.Now()} }

// elect has all managers know who leads.
func elect(leader *manager, others ...*manager) {
	here := leader.leader()
	here.Here = true
	leader.lead.set(here)
	for _, m := range others {
		m.lead.set(leader.leader())
	}
}

// leadership is what a test says.
type leadership struct {
	mu      sync.Mutex
	leader  Leader
	peers   []Peer
	changed chan struct{}
}

func newLeadership() *leadership {
	return &leadership{leader: Leader{Since: time.Now()}, changed: make(chan struct{})}
}

func (l *leadership) Leader() (Leader, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader, l.changed
}

func (l *leadership) Peers() []Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers
}

func (l *leadership) set(to Leader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader = to
	close(l.changed)
	l.changed = make(chan struct{})
}

// api answers with its own name, and tells the test who called.
type api struct {
	warrenv1connect.UnimplementedNodeServiceHandler
	warrenv1connect.UnimplementedServiceServiceHandler
	warrenv1connect.UnimplementedSessionServiceHandler
	warrenv1connect.UnimplementedClusterServiceHandler
	warrenv1connect.UnimplementedMembershipServiceHandler
	name string
	seen chan caller.Caller
	// hold, if set, is called before a write is answered.
	hold func(ctx context.Context) error
	// stale is how many calls were to be answered although nobody leads.
	stale atomic.Int64
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	options := connect.WithInterceptors(deposal{})
	mux.Handle(warrenv1connect.NewNodeServiceHandler(a, options))
	mux.Handle(warrenv1connect.NewServiceServiceHandler(a, options))
	mux.Handle(warrenv1connect.NewSessionServiceHandler(a, options))
	mux.Handle(warrenv1connect.NewClusterServiceHandler(a, options))
	mux.Handle(warrenv1connect.NewMembershipServiceHandler(a, options))
	mux.HandleFunc("/healthy", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, a.name) })
	return mux
}

// deposal has streams that were ended say why, as package api does.
type deposal struct{ connect.Interceptor }

func (deposal) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (deposal) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
			return cause
		}
		return err
	}
}

func (a *api) GetVersion(context.Context, *connect.Request[warrenv1.GetVersionRequest]) (*connect.Response[warrenv1.GetVersionResponse], error) {
	return connect.NewResponse(&warrenv1.GetVersionResponse{Version: a.name}), nil
}

func (a *api) GetNode(ctx context.Context, req *connect.Request[warrenv1.GetNodeRequest]) (*connect.Response[warrenv1.GetNodeResponse], error) {
	if Stale(ctx) {
		a.stale.Add(1)
	}
	a.seen <- caller.From(ctx)
	res := connect.NewResponse(&warrenv1.GetNodeResponse{Entry: &warrenv1.NodeEntry{
		Node: &warrenv1.Node{Meta: &warrenv1.Meta{Id: a.name}, Spec: &warrenv1.NodeSpec{Labels: map[string]string{"ref": req.Msg.GetRef()}}},
	}})
	res.Header().Set("Test-Header", "head")
	res.Trailer().Set("Test-Trailer", "tail")
	return res, nil
}

func (a *api) UpdateNode(ctx context.Context, req *connect.Request[warrenv1.UpdateNodeRequest]) (*connect.Response[warrenv1.UpdateNodeResponse], error) {
	a.seen <- caller.From(ctx)
	if a.hold != nil {
		if err := a.hold(ctx); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&warrenv1.UpdateNodeResponse{Node: &warrenv1.Node{Meta: &warrenv1.Meta{Id: a.name}, Spec: req.Msg.GetSpec()}}), nil
}

func (a *api) Join(ctx context.Context, _ *connect.Request[warrenv1.JoinRequest]) (*connect.Response[warrenv1.JoinResponse], error) {
	a.seen <- caller.From(ctx)
	return connect.NewResponse(&warrenv1.JoinResponse{Name: a.name}), nil
}

// WatchService sends the manager's name at once and then waits.
func (a *api) WatchService(ctx context.Context, _ *connect.Request[warrenv1.WatchServiceRequest], stream *connect.ServerStream[warrenv1.WatchServiceResponse]) error {
	a.seen <- caller.From(ctx)
	if err := stream.Send(&warrenv1.WatchServiceResponse{Service: &warrenv1.Service{Meta: &warrenv1.Meta{Id: a.name}}}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Attend answers a heartbeat with a welcome from the manager of that name, and the end of the agent's side
// with its own.
func (a *api) Attend(ctx context.Context, stream *connect.BidiStream[warrenv1.AttendRequest, warrenv1.AttendResponse]) error {
	a.seen <- caller.From(ctx)
	for {
		_, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_Welcome{Welcome: &warrenv1.Welcome{}}}); err != nil {
			return err
		}
	}
}

// dial returns a client of one manager for whoever has these credentials.
func (r *rig) dial(m *manager, who *pki.Credentials) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: pki.NewHolder(who).ClientConfig()}
	transport.Protocols.SetHTTP2(true)
	r.tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (r *rig) admin() *pki.Credentials { return r.credentials(warrenv1.Role_ROLE_ADMIN, "ann") }

func (r *rig) nodes(m *manager, options ...connect.ClientOption) warrenv1connect.NodeServiceClient {
	return warrenv1connect.NewNodeServiceClient(r.dial(m, r.admin()), "https://"+m.addr, options...)
}

func (r *rig) services(m *manager, options ...connect.ClientOption) warrenv1connect.ServiceServiceClient {
	return warrenv1connect.NewServiceServiceClient(r.dial(m, r.admin()), "https://"+m.addr, options...)
}

func (r *rig) sessions(m *manager, options ...connect.ClientOption) warrenv1connect.SessionServiceClient {
	return warrenv1connect.NewSessionServiceClient(r.dial(m, r.credentials(warrenv1.Role_ROLE_AGENT, "agent1")), "https://"+m.addr, options...)
}

// protocols are the ways in which callers speak.
var protocols = map[string][]connect.ClientOption{
	"connect json":     {connect.WithProtoJSON()},
	"connect protobuf": nil,
	"grpc":             {connect.WithGRPC()},
	"grpc-web":         {connect.WithGRPCWeb()},
}

// settled waits until no more goroutines run than before.
func settled(tb testing.TB, before int) {
	tb.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; <-ticker.C {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			tb.Fatalf("%d goroutines run, %d did before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// wire is a TCP connection to a manager that a test can cut without a word, as a network that fails does.
type wire struct {
	addr string
	dead atomic.Bool
}

func (r *rig) wire(to *manager) *wire {
	r.tb.Helper()
	listener, err := new(net.ListenConfig).Listen(r.tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.tb.Fatal(err)
	}
	w := &wire{addr: listener.Addr().String()}
	var copying sync.WaitGroup
	r.tb.Cleanup(func() {
		listener.Close()
		copying.Wait()
	})
	copying.Go(func() {
		for {
			here, err := listener.Accept()
			if err != nil {
				return
			}
			there, err := new(net.Dialer).DialContext(context.Background(), "tcp", to.addr)
			if err != nil {
				here.Close()
				continue
			}
			copying.Go(func() { w.copy(here, there) })
			copying.Go(func() { w.copy(there, here) })
		}
	})
	return w
}

// copy swallows what comes once the wire is dead.
func (w *wire) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if w.dead.Load() {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
