package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"connectrpc.com/validate"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/manager/audit"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
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
	// Knows returns nil when this manager has learned the cluster's state since it was started, as it does
	// when there is a leader.
	Knows() error
	// Initialize makes this manager the first of a new cluster. It fails with
	// consensus.ErrInitialized where it is a member of one.
	Initialize(ctx context.Context, spec *warrenv1.ClusterSpec, given Addresses) (*warrenv1.Cluster, error)
	// Managers lists the members of the control plane.
	Managers() ([]*warrenv1.Manager, error)
	// Addrs are the host:port of every manager that others can reach.
	Addrs() []string
	// AgentAddr is where agents reach this manager, empty where they cannot.
	AgentAddr() string
	// Enlist has a manager that has a certificate follow the cluster without a vote. The index is how far
	// it must have come before a vote makes sense.
	Enlist(ctx context.Context, told *statev1.Member) (index uint64, err error)
	// Promote gives a manager that follows its vote.
	Promote(ctx context.Context, id string) error
	// Announce keeps what a manager tells of itself.
	Announce(ctx context.Context, told *statev1.Member) error
	// Expel takes a manager out. itself says that it is the one that asks.
	Expel(ctx context.Context, ref string, force, itself bool) (id string, err error)
}

// Options is what the handler works with. All but Renewed, Observer, Tracer and AuditFile are needed.
type Options struct {
	Store      *state.Store
	Proposer   loop.Proposer
	Membership Membership
	Local      Local
	Authority  *authority.Authority
	Events     *events.Log
	Sessions   warrenv1connect.SessionServiceHandler
	// Renewed, which may be nil, is told when a node's agent is given a new certificate while its session
	// goes on.
	Renewed func(node string, expires time.Time)
	Logs    warrenv1connect.LogServiceHandler
	// Exchange is where streams from agents come from.
	Exchange *relay.Exchange
	// Closing ends when the manager begins to stop: streams end then, single calls are let finish.
	Closing context.Context
	Logger  *slog.Logger
	// Observer, which may be nil, is told of every call.
	Observer Observer
	// Tracer, which may be nil, is told of every call with one answer.
	Tracer Tracer
	// AuditFile, which may be nil, is given the audit log in JSON, beside Logger.
	AuditFile io.Writer
}

// New returns the handler of the whole API, with health checks and reflection.
func New(o Options) (http.Handler, error) {
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	rules := access.NewRules()
	audited := audit.New(rules, o.Logger, o.AuditFile)
	permitted := permission{rules, o.Store}
	interceptors := []connect.Interceptor{
		audited,
		outcome{o.Logger},
		farewell{o.Closing},
		guard(permitted.check),
		guard(readiness{rules, o.Membership}.check),
		guard(permitted.recognize),
		lasting{permitted},
		ownNode{},
		validate.NewInterceptor(validate.WithValidator(validator)),
	}
	if o.Observer != nil {
		interceptors = append([]connect.Interceptor{observed{o.Observer}}, interceptors...)
	}
	if o.Tracer != nil {
		interceptors = append([]connect.Interceptor{tracedBy(o.Tracer)}, interceptors...)
	}
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithCompressMinBytes(minCompressedBytes),
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
		connect.WithInterceptors(interceptors...),
	)
	write := writer{store: o.Store, proposer: o.Proposer}
	users := &userService{store: o.Store, write: write, authority: o.Authority, membership: o.Membership}
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewClusterServiceHandler(&clusterService{store: o.Store, write: write, membership: o.Membership, authority: o.Authority}, options))
	mux.Handle(warrenv1connect.NewTrustServiceHandler(&trustService{store: o.Store, authority: o.Authority, membership: o.Membership}, options))
	mux.Handle(warrenv1connect.NewManagerServiceHandler(&managerService{local: o.Local}, options))
	mux.Handle(warrenv1connect.NewMembershipServiceHandler(&membershipService{authority: o.Authority, membership: o.Membership, users: users, renewed: o.Renewed}, options))
	mux.Handle(warrenv1connect.NewUserServiceHandler(users, options))
	mux.Handle(warrenv1connect.NewNodeServiceHandler(&nodeService{store: o.Store, write: write, exchange: o.Exchange}, options))
	mux.Handle(warrenv1connect.NewNetworkServiceHandler(&networkService{store: o.Store, write: write, exchange: o.Exchange}, options))
	mux.Handle(warrenv1connect.NewServiceServiceHandler(&serviceService{store: o.Store, write: write}, options))
	mux.Handle(warrenv1connect.NewTaskServiceHandler(&taskService{store: o.Store}, options))
	mux.Handle(warrenv1connect.NewExplainServiceHandler(&explainService{store: o.Store, log: o.Events}, options))
	mux.Handle(warrenv1connect.NewSystemServiceHandler(&systemService{store: o.Store, exchange: o.Exchange}, options))
	mux.Handle(warrenv1connect.NewEventServiceHandler(&eventService{log: o.Events}, options))
	mux.Handle(warrenv1connect.NewSessionServiceHandler(o.Sessions, options))
	mux.Handle(warrenv1connect.NewLogServiceHandler(o.Logs, options))

	var names []string
	for service := range access.Services() {
		if service.FullName() != warrenv1connect.AgentServiceName { // which agents answer
			names = append(names, string(service.FullName()))
		}
	}
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(names...)))
	reflector := grpcreflect.NewStaticReflector(names...)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	return audited.Handler(mux), nil
}

// newValidator returns a validator that has the rules of every request compiled, so that the first call
// is as quick as the next.
func newValidator() (protovalidate.Validator, error) {
	var requests []protovalidate.ValidatorOption
	for method := range access.Methods() {
		requests = append(requests, protovalidate.WithMessageDescriptors(method.Input()))
	}
	v, err := protovalidate.New(requests...)
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the API's fields: %w", err)
	}
	return v, nil
}
