package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/traceparent"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// dialTimeout bounds the wait for an address that swallows packets.
	dialTimeout = 5 * time.Second
	// callTimeout bounds a single call; streams have no bound. A write that waits for an election
	// takes seconds, so this is far above what is normal.
	callTimeout = 30 * time.Second
	// keepAlive finds a manager that vanished under an open stream on this machine.
	keepAlive = 15 * time.Second
	// pingAfter and pingTimeout do so across a network, where a machine can go without a word: a stream is
	// to go on elsewhere soon after there is a new leader.
	pingAfter   = time.Second
	pingTimeout = 3 * time.Second
)

// Options say which managers are meant.
type Options struct {
	// Socket is the path of a manager's unix socket. It counts when there are no Addrs.
	Socket string
	// Addrs are the HOST:PORT of managers of one cluster, the one to ask first at the beginning.
	Addrs []string
	// Credentials are who the user is to managers at Addrs.
	Credentials *pki.Credentials
	// Verified, if set, is told the certificate of every manager that is connected to over TLS.
	Verified func(*x509.Certificate)
	// OnStale, if set, is told once that an answer may be out of date because since that time the cluster
	// has had no leader.
	OnStale func(since time.Time)
	// Trace is the traceparent of the trace that calls are part of; empty for none.
	Trace string
}

// Client is the cluster's API.
type Client struct {
	Cluster  warrenv1connect.ClusterServiceClient
	Services warrenv1connect.ServiceServiceClient
	Tasks    warrenv1connect.TaskServiceClient
	Nodes    warrenv1connect.NodeServiceClient
	Networks warrenv1connect.NetworkServiceClient
	Logs     warrenv1connect.LogServiceClient
	Events   warrenv1connect.EventServiceClient
	Explain  warrenv1connect.ExplainServiceClient
	System   warrenv1connect.SystemServiceClient

	Members warrenv1connect.MembershipServiceClient
	Trust   warrenv1connect.TrustServiceClient
	Users   warrenv1connect.UserServiceClient
	// Managers is about the manager on this machine.
	Managers warrenv1connect.ManagerServiceClient
}

// ErrNoCredentials says that managers elsewhere were named, and nothing to be known by.
var ErrNoCredentials = errors.New("managers on other machines are spoken to with a certificate, which a context holds: " +
	"make one with `warrenctl user create NAME` on a manager's machine and bring it here with `warrenctl context import FILE`, " +
	"or run warrenctl on a manager's machine, where it uses the unix socket")

// New returns a client of the managers that o names. It fails if an address is malformed, and with
// ErrNoCredentials; it does not dial.
func New(o Options) (*Client, error) {
	transport, err := newFailover(o)
	if err != nil {
		return nil, err
	}
	options := []connect.ClientOption{connect.WithInterceptors(limitCalls)}
	if o.Trace != "" {
		options = append(options, connect.WithInterceptors(traced(o.Trace)))
	}
	if len(o.Addrs) == 0 {
		// Nothing is gained by compressing what does not leave the machine.
		options = append(options, connect.WithAcceptCompression("gzip", nil, nil))
	}
	h, url := &http.Client{Transport: transport}, transport.scheme+"://manager"
	return &Client{
		Cluster:  warrenv1connect.NewClusterServiceClient(h, url, options...),
		Services: warrenv1connect.NewServiceServiceClient(h, url, options...),
		Tasks:    warrenv1connect.NewTaskServiceClient(h, url, options...),
		Nodes:    warrenv1connect.NewNodeServiceClient(h, url, options...),
		Networks: warrenv1connect.NewNetworkServiceClient(h, url, options...),
		Logs:     warrenv1connect.NewLogServiceClient(h, url, options...),
		Events:   warrenv1connect.NewEventServiceClient(h, url, options...),
		Explain:  warrenv1connect.NewExplainServiceClient(h, url, options...),
		System:   warrenv1connect.NewSystemServiceClient(h, url, options...),

		Members:  warrenv1connect.NewMembershipServiceClient(h, url, options...),
		Trust:    warrenv1connect.NewTrustServiceClient(h, url, options...),
		Users:    warrenv1connect.NewUserServiceClient(h, url, options...),
		Managers: warrenv1connect.NewManagerServiceClient(h, url, options...),
	}, nil
}

// tlsConfig is how managers are known, and told who calls.
func tlsConfig(o Options) *tls.Config {
	config := pki.NewHolder(o.Credentials).ClientConfig()
	verify := config.VerifyConnection
	config.VerifyConnection = func(s tls.ConnectionState) error {
		err := verify(s)
		if err == nil && o.Verified != nil {
			o.Verified(s.PeerCertificates[0])
		}
		return err
	}
	return config
}

// check tells what is wrong with addresses.
func check(o Options) error {
	for _, addr := range o.Addrs {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return fmt.Errorf("the manager's address %q is not HOST:PORT, such as 10.0.0.1:7420", addr)
		}
	}
	if len(o.Addrs) > 0 && o.Credentials == nil {
		return ErrNoCredentials
	}
	return nil
}

// limitCalls gives single calls a time limit where the caller has set none.
var limitCalls = connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if _, limited := ctx.Deadline(); !limited {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callTimeout)
			defer cancel()
		}
		return next(ctx, req)
	}
})

// traced is an interceptor that has calls be part of a trace. Streams last, and are no part of one.
func traced(parent string) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set(traceparent.Header, parent)
			return next(ctx, req)
		}
	}
}

// Transient tells whether err says that no manager could be reached or the stream broke, so that the
// same call may succeed in a moment.
func Transient(err error) bool {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return false
	}
	switch ce.Code() {
	case connect.CodeUnavailable:
		return true
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeInvalidArgument:
		// Broken connections surface under these codes, but never as something the manager said.
		return !connect.IsWireError(err)
	default:
		return false
	}
}

// NotReached tells whether err says that no connection to any manager came about at all.
func NotReached(err error) bool {
	if all := new(NoAnswerError); errors.As(err, &all) {
		return !all.reached()
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
