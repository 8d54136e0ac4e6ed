package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/backup"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/keyring"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// leader is a manager's part in a cluster that leads it.
type leader struct {
	Membership
	initialize func(*warrenv1.ClusterSpec) (*warrenv1.Cluster, error)
}

func (leader) Ready(context.Context) error { return nil }

func (leader) AgentAddr() string { return "" }

func (l leader) Initialize(_ context.Context, spec *warrenv1.ClusterSpec, _ Addresses) (*warrenv1.Cluster, error) {
	return l.initialize(spec)
}

// listenTo serves a handler to a caller who administers its machine.
func listenTo(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(caller.With(r.Context(), caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true})))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// founded is a store with a cluster that was just made, and its authority.
func founded(t *testing.T, objects ...state.Object) (*state.Store, *authority.Authority, authority.Key, *statetest.Proposer) {
	t.Helper()
	k := authority.NewKey()
	kept, err := authority.Found(statetest.ClusterID, k, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := statetest.New(t, append(objects, statetest.Cluster(), kept)...)
	proposer := statetest.NewProposer(store)
	a := authority.New(store, proposer)
	a.SetKey(k)
	return store, a, k, proposer
}

func whole(t *testing.T, store *state.Store, a *authority.Authority, proposer *statetest.Proposer, l leader) *httptest.Server {
	t.Helper()
	handler, err := New(Options{
		Store: store, Proposer: proposer, Membership: l, Events: events.NewLog(), Authority: a,
		Sessions: warrenv1connect.UnimplementedSessionServiceHandler{}, Logs: warrenv1connect.UnimplementedLogServiceHandler{},
		Closing: t.Context(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return listenTo(t, handler)
}

func TestABackupComesInPiecesAndHoldsTheState(t *testing.T) {
	big := statetest.Replicated("web", 1, func(s *warrenv1.Service) {
		s.Spec.Labels = map[string]string{"text": strings.Repeat("x", 3*pieceBytes)}
	})
	store, a, k, proposer := founded(t, big)
	server := whole(t, store, a, proposer, leader{})
	stream, err := warrenv1connect.NewClusterServiceClient(server.Client(), server.URL).BackupCluster(t.Context(), connect.NewRequest(&warrenv1.BackupClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var file bytes.Buffer
	messages := 0
	for stream.Receive() {
		messages++
		if n := len(stream.Msg().GetPiece()); n == 0 || n > pieceBytes {
			t.Errorf("a piece of %d bytes", n)
		}
		file.Write(stream.Msg().GetPiece())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	c, err := backupfile.Check(bytes.NewReader(file.Bytes()))
	if err != nil || messages < 4 || c.Services != 1 || !bytes.Equal(c.Header.GetClusterKey(), k.Secret()) {
		t.Errorf("%d messages, %+v, %v", messages, c, err)
	}
}

func TestTheUnlockKeyIsGivenWithAutolockAlone(t *testing.T) {
	store, a, _, proposer := founded(t)
	server := whole(t, store, a, proposer, leader{initialize: func(spec *warrenv1.ClusterSpec) (*warrenv1.Cluster, error) {
		return &warrenv1.Cluster{Spec: spec}, nil
	}})
	clusters := warrenv1connect.NewClusterServiceClient(server.Client(), server.URL)
	trust := warrenv1connect.NewTrustServiceClient(server.Client(), server.URL)
	get := func(rotate bool) (unlockkey.Key, error) {
		res, err := trust.GetUnlockKey(t.Context(), connect.NewRequest(&warrenv1.GetUnlockKeyRequest{Rotate: rotate}))
		if err != nil {
			return unlockkey.Key{}, err
		}
		return unlockkey.Parse(res.Msg.GetKey())
	}
	update := func(on bool) {
		t.Helper()
		spec := proto.CloneOf(store.Snapshot().Cluster().GetSpec())
		spec.Autolock = on
		if _, err := clusters.UpdateCluster(t.Context(), connect.NewRequest(&warrenv1.UpdateClusterRequest{Spec: spec})); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := get(false); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "--autolock=true") {
		t.Errorf("without: %v", err)
	}
	update(true)
	first, err := get(false)
	if err != nil {
		t.Fatal(err)
	}
	update(true)
	if again, err := get(false); err != nil || !again.Equal(first) {
		t.Errorf("the key has changed: %v", err)
	}
	res, err := clusters.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{Spec: &warrenv1.ClusterSpec{Autolock: true}}))
	if err != nil || res.Msg.GetUnlockKey() != first.Text() {
		t.Errorf("init: %v", err)
	}
	if second, err := get(true); err != nil || second.Equal(first) {
		t.Errorf("rotated: %v", err)
	}
	update(false)
	if _, err := get(true); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("afterwards: %v", err)
	}
}

// lock is a lock with one key.
type lock struct {
	key    unlockkey.Key
	opened bool
	early  bool
}

func (l *lock) Unlock(k unlockkey.Key) error {
	switch {
	case l.opened:
		return keyring.ErrNotLocked
	case l.early:
		return keyring.ErrEarly
	case !k.Equal(l.key):
		return keyring.ErrWrongKey
	}
	l.opened = true
	return nil
}

func TestALockedManagerTellsHowItStandsCanBeUnlockedAndRefusesTheRest(t *testing.T) {
	l := &lock{key: unlockkey.New()}
	handler, err := NewLocked(LockedOptions{
		Lock:     l,
		Describe: func() *warrenv1.GetManagerResponse { return &warrenv1.GetManagerResponse{Id: "m1"} },
		Opened: func(context.Context) error {
			if !l.opened {
				t.Error("it waits although it is locked")
			}
			return nil
		},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := listenTo(t, handler)
	managers := warrenv1connect.NewManagerServiceClient(server.Client(), server.URL)
	got, err := managers.GetManager(t.Context(), connect.NewRequest(&warrenv1.GetManagerRequest{}))
	if err != nil || got.Msg.GetState() != warrenv1.ManagerState_MANAGER_STATE_LOCKED || got.Msg.GetId() != "m1" || !strings.Contains(got.Msg.GetProblem(), "cluster unlock") {
		t.Errorf("%v, %v", got, err)
	}
	version, err := warrenv1connect.NewClusterServiceClient(server.Client(), server.URL).GetVersion(t.Context(), connect.NewRequest(&warrenv1.GetVersionRequest{}))
	if err != nil || !version.Msg.GetInitialized() {
		t.Errorf("%v, %v", version, err)
	}

	for method := range access.Methods() {
		procedure := access.Procedure(method)
		switch procedure {
		case warrenv1connect.ManagerServiceGetManagerProcedure, warrenv1connect.ManagerServiceUnlockManagerProcedure, warrenv1connect.ClusterServiceGetVersionProcedure:
			continue
		}
		// JSON for single calls; the gRPC protocol carries single calls and streams alike.
		client := connect.NewClient[warrenv1.GetManagerRequest, warrenv1.GetManagerResponse](server.Client(), server.URL+procedure, connect.WithGRPC())
		_, err := client.CallUnary(t.Context(), connect.NewRequest(&warrenv1.GetManagerRequest{}))
		if code := connect.CodeOf(err); code != connect.CodeFailedPrecondition && code != connect.CodePermissionDenied || err == nil {
			t.Errorf("%s: %v", procedure, err)
		}
		if connect.CodeOf(err) == connect.CodeFailedPrecondition && !strings.Contains(err.Error(), "run `warrenctl cluster unlock`") {
			t.Errorf("%s: %v", procedure, err)
		}
	}
	res, err := server.Client().Post(server.URL+"/", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("somebody else is told %d", res.StatusCode)
	}

	give := func(key string) error {
		_, err := managers.UnlockManager(t.Context(), connect.NewRequest(&warrenv1.UnlockManagerRequest{Key: key}))
		return err
	}
	l.early = true
	if err := give(l.key.Text()); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("early: %v", err)
	}
	l.early = false
	if err := give("sesame"); connect.CodeOf(err) != connect.CodeInvalidArgument || strings.Contains(err.Error(), "sesame") {
		t.Errorf("nonsense: %v", err)
	}
	if err := give(unlockkey.New().Text()); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a wrong key: %v", err)
	}
	if err := give(l.key.Text()); err != nil {
		t.Errorf("the key: %v", err)
	}
	if err := give(l.key.Text()); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("again: %v", err)
	}
}

// waiting is a manager that may be restored.
type waiting struct {
	folder   string
	refuses  error
	restored state.Snapshot
	options  *warrenv1.RestoreOptions
	calls    int
}

func (w *waiting) Admit(_ context.Context, o *warrenv1.RestoreOptions) (self, folder string, err error) {
	if w.refuses != nil && !o.GetForce() {
		return "", "", w.refuses
	}
	return "m9", w.folder, nil
}

func (w *waiting) Restore(_ context.Context, o *warrenv1.RestoreOptions, r *backup.Restoration) error {
	w.calls++
	w.options = o
	store := state.NewStore()
	from, err := r.State()
	if err == nil {
		err = store.Load(from)
	}
	w.restored = store.Snapshot()
	return err
}

// restorable serves RestoreManager of a waiting manager.
type restorable struct {
	warrenv1connect.UnimplementedManagerServiceHandler
	to *waiting
}

func (h restorable) RestoreManager(ctx context.Context, stream *connect.ClientStream[warrenv1.RestoreManagerRequest]) (*connect.Response[warrenv1.RestoreManagerResponse], error) {
	return restoreManager(ctx, stream, h.to)
}

func TestABackupIsRestoredOnlyWhenAllOfItIsHereAndRight(t *testing.T) {
	store, _, k, _ := founded(t, statetest.Replicated("web", 1))
	var b bytes.Buffer
	if err := backup.Take(&b, store.Snapshot(), k, time.Now()); err != nil {
		t.Fatal(err)
	}
	file := b.Bytes()
	w := &waiting{folder: t.TempDir()}
	mux := http.NewServeMux()
	mux.Handle(warrenv1connect.NewManagerServiceHandler(restorable{to: w}, connect.WithInterceptors(outcome{slog.New(slog.DiscardHandler)})))
	server := listenTo(t, mux)
	client := warrenv1connect.NewManagerServiceClient(server.Client(), server.URL)

	options := func(o *warrenv1.RestoreOptions) *warrenv1.RestoreManagerRequest {
		return &warrenv1.RestoreManagerRequest{Message: &warrenv1.RestoreManagerRequest_Options{Options: o}}
	}
	send := func(o *warrenv1.RestoreOptions, pieces ...[]byte) (*warrenv1.RestoreManagerResponse, error) {
		stream := client.RestoreManager(t.Context())
		if o != nil {
			_ = stream.Send(options(o))
		}
		for _, p := range pieces {
			_ = stream.Send(&warrenv1.RestoreManagerRequest{Message: &warrenv1.RestoreManagerRequest_Piece{Piece: p}})
		}
		res, err := stream.CloseAndReceive()
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	altered := bytes.Clone(file)
	altered[len(altered)/2] ^= 1
	newer := bytes.Clone(file)
	newer[11] = 9
	none := &warrenv1.RestoreOptions{}
	for name, c := range map[string]struct {
		options *warrenv1.RestoreOptions
		file    []byte
		code    connect.Code
		words   string
	}{
		"without options": {nil, file, connect.CodeInvalidArgument, "options"},
		"cut short":       {none, file[:len(file)-7], connect.CodeDataLoss, "cut short"},
		"altered":         {none, altered, connect.CodeDataLoss, "altered"},
		"newer":           {none, newer, connect.CodeFailedPrecondition, "upgrade"},
		"something else":  {none, []byte(strings.Repeat("hello", 99)), connect.CodeInvalidArgument, "not a backup"},
		"empty":           {none, nil, connect.CodeDataLoss, "cut short"},
	} {
		if _, err := send(c.options, c.file); connect.CodeOf(err) != c.code || err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.refuses = consensus.ErrInitialized
	if _, err := send(none, file); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("a manager with a cluster: %v", err)
	}
	if w.calls != 0 {
		t.Fatalf("something was restored, %d times", w.calls)
	}
	forced := &warrenv1.RestoreOptions{Force: true, AdvertiseAddr: "a:1"}
	res, err := send(forced, file[:10], nil, file[10:100], file[100:])
	if err != nil || res.GetClusterId() != statetest.ClusterID || res.GetClusterName() != "test" {
		t.Fatalf("%v, %v", res, err)
	}
	if w.calls != 1 || !proto.Equal(w.options, forced) || w.restored.ServiceByName("web") == nil {
		t.Errorf("restored %d times with %v", w.calls, w.options)
	}
	if left, err := os.ReadDir(w.folder); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
