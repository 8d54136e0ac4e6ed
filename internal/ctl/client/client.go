package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// dialTimeout bounds the wait for an address that swallows packets.
	dialTimeout = 5 * time.Second
	// callTimeout bounds a single call; streams have no bound. A write that waits for an election
	// takes seconds, so this is far above what is normal.
	callTimeout = 30 * time.Second
	// keepAlive finds a manager that vanished under an open stream.
	keepAlive = 15 * time.Second
)

// Options say which manager is meant.
type Options struct {
	// Socket is the path of a manager's unix socket. It counts when Host is empty.
	Socket string
	// Host is the HOST:PORT of a manager.
	Host string
	// Insecure allows a Host that is not this machine.
	Insecure bool
}

// Client is a manager's API.
type Client struct {
	Cluster  warrenv1connect.ClusterServiceClient
	Services warrenv1connect.ServiceServiceClient
	Tasks    warrenv1connect.TaskServiceClient
	Nodes    warrenv1connect.NodeServiceClient
	Logs     warrenv1connect.LogServiceClient
	Events   warrenv1connect.EventServiceClient
}

// New returns a client of the manager that o names. It fails if o.Host is malformed, or is not on
// this machine and o.Insecure is not set; it does not dial.
func New(o Options) (*Client, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{SendPingTimeout: keepAlive, PingTimeout: keepAlive},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)

	options := []connect.ClientOption{connect.WithInterceptors(limitCalls)}
	url := "http://" + o.Host
	if o.Host != "" {
		if err := mayBeReached(o); err != nil {
			return nil, err
		}
		transport.DialContext = dialer.DialContext
	} else {
		url = "http://manager"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", o.Socket)
		}
		// Nothing is gained by compressing what does not leave the machine.
		options = append(options, connect.WithAcceptCompression("gzip", nil, nil))
	}

	h := &http.Client{Transport: transport}
	return &Client{
		Cluster:  warrenv1connect.NewClusterServiceClient(h, url, options...),
		Services: warrenv1connect.NewServiceServiceClient(h, url, options...),
		Tasks:    warrenv1connect.NewTaskServiceClient(h, url, options...),
		Nodes:    warrenv1connect.NewNodeServiceClient(h, url, options...),
		Logs:     warrenv1connect.NewLogServiceClient(h, url, options...),
		Events:   warrenv1connect.NewEventServiceClient(h, url, options...),
	}, nil
}

// mayBeReached refuses an address that would carry orders to a cluster over a network in plain text.
func mayBeReached(o Options) error {
	host, port, err := net.SplitHostPort(o.Host)
	if err != nil || port == "" {
		return fmt.Errorf("--host %q is not HOST:PORT, such as 127.0.0.1:7420", o.Host)
	}
	if o.Insecure || host == "localhost" {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--host %s is another machine, and this connection is neither encrypted nor authenticated: "+
		"give --insecure as well if the network between is yours", o.Host)
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

// Transient tells whether err says that the manager was out of reach or the stream broke, so that the
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

// NotReached tells whether err says that no connection to the manager came about at all.
func NotReached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
