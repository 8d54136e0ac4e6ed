package client

import (
	"context"
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
