package prober

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// grpcProbe asks by the gRPC health checking protocol.
type grpcProbe struct {
	port    uint16
	service string
	secrecy credentials.TransportCredentials
}

func newGRPC(g *warrenv1.GrpcProbe) grpcProbe {
	probe := grpcProbe{port: uint16(g.GetPort()), service: g.GetService(), secrecy: insecure.NewCredentials()}
	if g.GetTls() {
		// The program is asked on its own node, by an address that no certificate names.
		probe.secrecy = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	return probe
}

func (grpcProbe) kind() string { return "grpc" }

func (g grpcProbe) run(ctx context.Context, p *Prober, at Target, timeout time.Duration, _ func()) Result {
	what := "gRPC health of " + at.where(g.port)
	if g.service != "" {
		what += ", service " + g.service
	}
	// Here and not in the client, whose words for it are many.
	conn, err := p.dial(ctx, at, g.port)
	if err != nil {
		return unreached(what, err, timeout)
	}
	defer conn.Close()
	// The call has the same end as the connection, and knows what to say of it.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return Failed(what + ": " + plain(err, timeout))
	}
	client, err := grpc.NewClient("passthrough:///"+conn.RemoteAddr().String(),
		grpc.WithTransportCredentials(g.secrecy), grpc.WithUserAgent(userAgent), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithContextDialer(handOver(conn)))
	if err != nil {
		return Unknown(err.Error())
	}
	defer client.Close()
	answer, err := grpc_health_v1.NewHealthClient(client).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: g.service})
	switch state := status.Convert(err); {
	case err == nil && answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING:
		return Succeeded()
	case err == nil:
		return Failed(what + ": " + answer.GetStatus().String())
	case ctx.Err() != nil:
		return Failed(what + ": " + plain(ctx.Err(), timeout))
	case state.Code() == codes.Unimplemented:
		return Failed(what + ": the server does not have grpc.health.v1.Health")
	case state.Code() == codes.NotFound:
		return Failed(what + ": the server does not know this service")
	default:
		return Failed(fmt.Sprintf("%s: %s: %s", what, state.Code(), state.Message()))
	}
}

// handOver gives a connection to the first who dials.
func handOver(conn net.Conn) func(context.Context, string) (net.Conn, error) {
	given := make(chan net.Conn, 1)
	given <- conn
	return func(context.Context, string) (net.Conn, error) {
		select {
		case conn := <-given:
			return conn, nil
		default:
			return nil, net.ErrClosed // it has broken, and there is no other
		}
	}
}
