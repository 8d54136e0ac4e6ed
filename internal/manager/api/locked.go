package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/validate"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// ErrLocked says what a manager that waits for its unlock key answers to every call but those that unlock it.
var ErrLocked = errors.New("this manager is locked and takes no part in its cluster: run `warrenctl cluster unlock` on its machine")

// LockedOptions is what a locked manager works with. All are needed.
type LockedOptions struct {
	Lock Locker
	// Describe tells how the manager stands; its state is set here.
	Describe func() *warrenv1.GetManagerResponse
	// Opened returns when the manager takes part in its cluster, or why it cannot, after it was unlocked.
	Opened func(ctx context.Context) error
	// Forget has the manager forget its cluster, for when the unlock key is lost.
	Forget func() error
	Logger *slog.Logger
}

// NewLocked returns the handler of a manager that waits for its unlock key: it tells how it stands
// (GetManager, GetVersion), can be unlocked, or be made to forget what it holds, and refuses everything else
// with ErrLocked.
func NewLocked(o LockedOptions) (http.Handler, error) {
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	nothing := state.NewStore() // whom it knows is behind the lock: only callers of its machine are heard
	permitted := permission{access.NewRules(), nothing}
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
		connect.WithInterceptors(
			outcome{o.Logger},
			guard(permitted.check),
			guard(permitted.recognize),
			guard(whileLocked),
			validate.NewInterceptor(validate.WithValidator(validator)),
		),
	)
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewManagerServiceHandler(&lockedManager{o: o}, options))
	mux.Handle(warrenv1connect.NewClusterServiceHandler(&lockedCluster{clusterService{store: nothing}}, options))
	refusal := connect.NewErrorWriter()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !refusal.IsSupported(r) {
			http.Error(w, ErrLocked.Error(), http.StatusServiceUnavailable)
			return
		}
		if err := refusal.Write(w, r, locked()); err != nil {
			o.Logger.Debug("a refusal was not heard", "error", err)
		}
	})
	return mux, nil
}

// whileLocked lets calls pass that a locked manager answers.
func whileLocked(_ context.Context, procedure string) error {
	switch procedure {
	case warrenv1connect.ManagerServiceGetManagerProcedure, warrenv1connect.ManagerServiceUnlockManagerProcedure,
		warrenv1connect.ManagerServiceLeaveManagerProcedure,
		warrenv1connect.ClusterServiceGetVersionProcedure:
		return nil
	}
	return locked()
}

func locked() *connect.Error { return connect.NewError(connect.CodeFailedPrecondition, ErrLocked) }

// lockedManager is a manager that waits for its unlock key.
type lockedManager struct {
	warrenv1connect.UnimplementedManagerServiceHandler
	o LockedOptions
}

// GetManager implements warrenv1connect.ManagerServiceHandler.
func (h *lockedManager) GetManager(context.Context, *connect.Request[warrenv1.GetManagerRequest]) (*connect.Response[warrenv1.GetManagerResponse], error) {
	res := h.o.Describe()
	res.State, res.Problem = warrenv1.ManagerState_MANAGER_STATE_LOCKED, ErrLocked.Error()
	return connect.NewResponse(res), nil
}

// LeaveManager implements warrenv1connect.ManagerServiceHandler. A locked manager cannot tell the others that it
// leaves, so that it takes force.
func (h *lockedManager) LeaveManager(ctx context.Context, req *connect.Request[warrenv1.LeaveManagerRequest]) (*connect.Response[warrenv1.LeaveManagerResponse], error) {
	if !req.Msg.GetForce() {
		return nil, problemf(connect.CodeFailedPrecondition, "%v first; or, where the key is lost, have it forget its cluster with --force, "+
			"and tell the others with `warrenctl manager rm`", ErrLocked)
	}
	if err := h.o.Forget(); err != nil {
		return nil, err
	}
	if err := h.o.Opened(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.LeaveManagerResponse{}), nil
}

// lockedCluster is what such a manager says of its cluster: that there is one.
type lockedCluster struct{ clusterService }

// GetVersion implements warrenv1connect.ClusterServiceHandler.
func (h *lockedCluster) GetVersion(ctx context.Context, req *connect.Request[warrenv1.GetVersionRequest]) (*connect.Response[warrenv1.GetVersionResponse], error) {
	res, err := h.clusterService.GetVersion(ctx, req)
	if err == nil {
		res.Msg.Initialized = true
	}
	return res, err
}

// openingWait bounds how long UnlockManager waits for the manager to have opened what it holds. Reading a
// large state takes seconds.
const openingWait = time.Minute

// UnlockManager implements warrenv1connect.ManagerServiceHandler. It returns when the manager answers all
// other calls as well.
func (h *lockedManager) UnlockManager(ctx context.Context, req *connect.Request[warrenv1.UnlockManagerRequest]) (*connect.Response[warrenv1.UnlockManagerResponse], error) {
	if err := unlock(h.o.Lock, req.Msg); err != nil {
		return nil, err
	}
	h.o.Logger.Info("unlocked")
	ctx, cancel := context.WithTimeout(ctx, openingWait)
	defer cancel()
	if err := h.o.Opened(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.UnlockManagerResponse{}), nil
}
