package manager

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// dialTimeout bounds the wait for an address that swallows packets, handshakeTimeout that for one that
	// answers and says nothing.
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 3 * time.Second
)

// dialManager returns a client of the manager at an address, and what ends its connections.
func dialManager(addr string, config *tls.Config) (client warrenv1connect.MembershipServiceClient, end func()) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		Protocols:           protocols,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
		TLSClientConfig:     config,
		TLSHandshakeTimeout: handshakeTimeout,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
	}
	return warrenv1connect.NewMembershipServiceClient(&http.Client{Transport: transport}, "https://"+addr), transport.CloseIdleConnections
}
