package main

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestTheHealthThatIsServedIsUnderstoodByGRPCsOwnClient(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{
		"": grpc_health_v1.HealthCheckResponse_SERVING, "a cold": grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		listener := listen(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- serveGRPCOn(ctx, listener, func() (string, error) { return what, nil }) }()
		client, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := grpc_health_v1.NewHealthClient(client).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil || answer.GetStatus() != want {
			t.Errorf("%q is told as %v, %v", what, answer, err)
		}
		client.Close()
		stop()
		awaitEnd(t, done)
	}
}
