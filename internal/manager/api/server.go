package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"connectrpc.com/validate"

	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// maxRequestBytes bounds one request message. A service spec at all its limits at once is larger, one
// that a person or a program would write is a thousandth of it.
const maxRequestBytes = 4 << 20

// minCompressedBytes is the size below which a response is sent as it is: compressing costs more than the
// network does then.
const minCompressedBytes = 8 << 10

// Membership is the manager's own part in the cluster.
type Membership interface {
	// Ready returns nil when this manager can answer for the cluster. It waits a little for an election
	// that is under way. It fails with ErrUninitialized or consensus.ErrNotLeader.
	Ready(ctx context.Context) error
	// Initialize makes this manager the first of a new cluster. It fails with
	// consensus.ErrInitialized where it is a member of one.
	Initialize(ctx context.Context, spec *warrenv1.ClusterSpec) (*warrenv1.Cluster, error)
	// Managers lists the members of the control plane.
	Managers() ([]*warrenv1.Manager, error)
	// AgentAddr is where agents reach this manager, empty where they cannot.
	AgentAddr() string
}

// Options is what the handler works with. All are needed.
type Options struct {
	Store      *state.Store
	Proposer   loop.Proposer
	Membership Membership
	Events     *events.Log
	Sessions   warrenv1connect.SessionServiceHandler
	Logs       warrenv1connect.LogServiceHandler
	// Closing ends when the manager begins to stop: streams end then, single calls are let finish.
	Closing context.Context
	Logger  *slog.Logger
}

// New returns the handler of the whole API, with health checks and reflection.
func New(o Options) (http.Handler, error) {
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	access := newAccess()
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithCompressMinBytes(minCompressedBytes),
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
		connect.WithInterceptors(
			outcome{o.Logger},
			farewell{o.Closing},
			guard(access.check),
			guard(readiness{access, o.Membership}.check),
			validate.NewInterceptor(validate.WithValidator(validator)),
		),
	)
	write := writer{store: o.Store, proposer: o.Proposer}
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewClusterServiceHandler(&clusterService{store: o.Store, write: write, membership: o.Membership}, options))
	mux.Handle(warrenv1connect.NewNodeServiceHandler(&nodeService{store: o.Store, write: write}, options))
	mux.Handle(warrenv1connect.NewServiceServiceHandler(&serviceService{store: o.Store, write: write}, options))
	mux.Handle(warrenv1connect.NewTaskServiceHandler(&taskService{store: o.Store}, options))
	mux.Handle(warrenv1connect.NewEventServiceHandler(&eventService{log: o.Events}, options))
	mux.Handle(warrenv1connect.NewSessionServiceHandler(o.Sessions, options))
	mux.Handle(warrenv1connect.NewLogServiceHandler(o.Logs, options))

	names := serviceNames()
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(names...)))
	reflector := grpcreflect.NewStaticReflector(names...)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	return mux, nil
}

// newValidator returns a validator that has the rules of every request compiled, so that the first call
// is as quick as the next.
func newValidator() (protovalidate.Validator, error) {
	var requests []protovalidate.ValidatorOption
	for method := range Methods() {
		requests = append(requests, protovalidate.WithMessageDescriptors(method.Input()))
	}
	v, err := protovalidate.New(requests...)
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the API's fields: %w", err)
	}
	return v, nil
}
