package api

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"connectrpc.com/connect"
)

func TestAPanicOrAnUnknownErrorIsAFaultOfTheManager(t *testing.T) {
	o := outcome{slog.New(slog.NewTextHandler(t.Output(), nil))}
	for name, next := range map[string]connect.StreamingHandlerFunc{
		"panic":         func(context.Context, connect.StreamingHandlerConn) error { panic("oh") },
		"unknown error": func(context.Context, connect.StreamingHandlerConn) error { return errors.New("oh") },
	} {
		if err := o.WrapStreamingHandler(next)(t.Context(), conn{}); connect.CodeOf(err) != connect.CodeInternal {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// conn is a stream nobody reads.
type conn struct{ connect.StreamingHandlerConn }

func (conn) Spec() connect.Spec { return connect.Spec{Procedure: "/test"} }
