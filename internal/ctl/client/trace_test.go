package client

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

func TestCallsSayOfWhichTraceTheyArePart(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("traceparent")
		http.NotFound(w, r)
	}))
	defer server.Close()
	client := warrenv1connect.NewTaskServiceClient(server.Client(), server.URL, connect.WithInterceptors(traced(parent)))
	_, err := client.GetTask(t.Context(), connect.NewRequest(&warrenv1.GetTaskRequest{Ref: "web.1"}))
	if header := <-got; header != parent || err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("sent %q; %v", header, err)
	}
}
