package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Agent returns a client of the agent on this machine, through its unix socket. Its calls take as long as
// they take: a node that leaves waits for its tasks to stop.
func Agent(socket string) warrenv1connect.AgentServiceClient {
	return warrenv1connect.NewAgentServiceClient(overSocket(socket), "http://agent", uncompressed)
}

// uncompressed: nothing is gained by compressing what does not leave the machine.
var uncompressed = connect.WithAcceptCompression("gzip", nil, nil)

func overSocket(path string) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
		},
	}}
}

// profileLimit bounds what is read of a daemon's profile.
const profileLimit = 64 << 20

// Profile returns one of the profiles that a daemon on this machine tells of itself on its unix socket, such as
// goroutine?debug=1.
func Profile(ctx context.Context, socket, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/debug/pprof/"+name, http.NoBody)
	if err != nil {
		return nil, err
	}
	h := overSocket(socket)
	defer h.CloseIdleConnections()
	res, err := h.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the daemon answers %s", res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, profileLimit))
}
