package manager_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// running is a manager under test with clients on its unix socket.
type running struct {
	manager  *manager.Manager
	stop     func() error // and wait
	cluster  warrenv1connect.ClusterServiceClient
	services warrenv1connect.ServiceServiceClient
	nodes    warrenv1connect.NodeServiceClient
	tasks    warrenv1connect.TaskServiceClient
	events   warrenv1connect.EventServiceClient

	membership warrenv1connect.MembershipServiceClient
	local      warrenv1connect.ManagerServiceClient
	trust      warrenv1connect.TrustServiceClient
}

// start runs a manager over the data in dir until the test ends, or stop is called.
func start(t testing.TB, dir string, edits ...func(*manager.Options)) *running {
	t.Helper()
	o := options(t, dir)
	for _, edit := range edits {
		edit(&o)
	}
	m, err := manager.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	r := dial(t, filepath.Join(dir, "m.sock"))
	r.manager, r.stop = m, stop
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop the manager: %v", err)
		}
	})
	return r
}

func options(t testing.TB, dir string) manager.Options {
	return manager.Options{
		DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "m.sock"), ListenAddr: "127.0.0.1:0",
		// The managers of a test share two processors with whatever else is tested.
		RaftMultiplier: 3,
		Logger:         slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// dial returns clients of the manager on a socket.
func dial(t testing.TB, socket string) *running {
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	plain := connect.WithAcceptCompression("gzip", nil, nil) // as warrenctl does on the socket
	return &running{
		cluster:  warrenv1connect.NewClusterServiceClient(client, "http://manager", plain),
		services: warrenv1connect.NewServiceServiceClient(client, "http://manager", plain),
		nodes:    warrenv1connect.NewNodeServiceClient(client, "http://manager", plain),
		tasks:    warrenv1connect.NewTaskServiceClient(client, "http://manager", plain),
		events:   warrenv1connect.NewEventServiceClient(client, "http://manager", plain),

		membership: warrenv1connect.NewMembershipServiceClient(client, "http://manager", plain),
		local:      warrenv1connect.NewManagerServiceClient(client, "http://manager", plain),
		trust:      warrenv1connect.NewTrustServiceClient(client, "http://manager", plain),
	}
}

func (r *running) init(t testing.TB) {
	t.Helper()
	if _, err := r.cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
		t.Fatal(err)
	}
}

func create(name string, replicas uint32) *connect.Request[warrenv1.CreateServiceRequest] {
	return connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
		Name: name,
		Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: replicas}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "registry.example/team/app:1.2", Env: []string{"A=1", "B=2"}}},
	}})
}

func TestWhatWasAcknowledgedSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	r.init(t)
	if _, err := r.services.CreateService(t.Context(), create("web", 3)); err != nil {
		t.Fatal(err)
	}
	before, err := r.cluster.GetCluster(t.Context(), connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir)
	// The first call waits for the election.
	after, err := r.cluster.GetCluster(t.Context(), connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if after.Msg.GetCluster().GetMeta().GetId() != before.Msg.GetCluster().GetMeta().GetId() || after.Msg.GetServices() != 1 ||
		after.Msg.GetManagers()[0].GetId() != before.Msg.GetManagers()[0].GetId() || !after.Msg.GetManagers()[0].GetLeader() {
		t.Errorf("before %v, after %v", before.Msg, after.Msg)
	}
}

func TestACreatedServiceGetsItsTasksAndARemovedOneGoes(t *testing.T) {
	r := start(t, t.TempDir())
	r.init(t)
	if _, err := r.services.CreateService(t.Context(), create("web", 3)); err != nil {
		t.Fatal(err)
	}
	stream, err := r.services.WatchService(t.Context(), connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: "web"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	until := func(what string, done func(*warrenv1.WatchServiceResponse) bool) {
		t.Helper()
		for stream.Receive() {
			if done(stream.Msg()) {
				return
			}
		}
		t.Fatalf("%s: the stream ended: %v", what, stream.Err())
	}
	until("three tasks wait for a node", func(m *warrenv1.WatchServiceResponse) bool {
		return len(m.GetProgress().GetSlots()) == 3 && strings.Contains(m.GetProgress().GetReason(), "no node")
	})
	if _, err := r.services.DeleteService(t.Context(), connect.NewRequest(&warrenv1.DeleteServiceRequest{Ref: "web"})); err != nil {
		t.Fatal(err)
	}
	until("the service is gone", func(m *warrenv1.WatchServiceResponse) bool { return m.GetRemoved() })
	tasks, err := r.tasks.ListTasks(t.Context(), connect.NewRequest(&warrenv1.ListTasksRequest{}))
	if err != nil || len(tasks.Msg.GetTasks()) != 0 {
		t.Errorf("tasks left: %v, %v", tasks, err)
	}
}

func TestAClusterIsMadeOnce(t *testing.T) {
	r := start(t, t.TempDir())
	_, err := r.services.ListServices(t.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("before: %v", err)
	}
	var inits sync.WaitGroup
	codes := make(chan connect.Code, 4)
	for range 4 {
		inits.Go(func() {
			_, err := r.cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{}))
			if err == nil {
				codes <- 0
			} else {
				codes <- connect.CodeOf(err)
			}
		})
	}
	inits.Wait()
	close(codes)
	made := 0
	for code := range codes {
		if code == 0 {
			made++
		} else if code != connect.CodeAlreadyExists {
			t.Errorf("got %v", code)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}

func TestStoppingEndsOpenStreamsWithoutDelay(t *testing.T) {
	r := start(t, t.TempDir())
	r.init(t)
	stream, err := r.events.WatchEvents(t.Context(), connect.NewRequest(&warrenv1.WatchEventsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
		t.Errorf("ended with %v", stream.Err())
	}
}

func TestASocketLeftBehindIsTakenOverAndOneInUseIsNot(t *testing.T) {
	dir := t.TempDir()
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "m.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	start(t, dir)
	info, err := os.Stat(filepath.Join(dir, "m.sock"))
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	o := options(t, t.TempDir())
	o.Socket = filepath.Join(dir, "m.sock")
	if _, err := manager.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another warren-manager") {
		t.Errorf("got %v", err)
	}
	o.Socket = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(o.Socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
}

func TestAnAddressIsCheckedBeforeAnythingIsTouched(t *testing.T) {
	o := options(t, t.TempDir())
	o.ListenAddr = "7420"
	if _, err := manager.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(o.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder was made")
	}
	for _, addr := range []string{"10.0.0.5", ":7420", "10.0.0.5:", "10.0.0.5:0", "0.0.0.0:7420", "[::]:7420"} {
		o.ListenAddr, o.AdvertiseAddr = "127.0.0.1:0", addr
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "--advertise-addr "+addr) {
			t.Errorf("advertise %s: %v", addr, err)
		}
	}
	for _, addr := range []string{"", "10.0.0.5:7420", "m1:7420", "[fd00::1]:7420"} {
		if o.AdvertiseAddr = addr; o.Validate() != nil {
			t.Errorf("advertise %s: %v", addr, o.Validate())
		}
	}
	o.AdvertiseAddr = ""
	o.ListenAddr = "0.0.0.0:0"
	m, err := manager.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if host, _, err := net.SplitHostPort(m.AgentAddr()); err != nil || host == "0.0.0.0" {
		t.Errorf("advertised %q", m.AgentAddr())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestProfilesAreServedOnTheSocketAlone(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	get := func(client *http.Client, url string) int {
		res, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	unix := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "m.sock"))
	}}}
	defer unix.CloseIdleConnections()
	if got := get(unix, "http://manager/debug/pprof/cmdline"); got != http.StatusOK {
		t.Errorf("on the socket: %d", got)
	}
	r.init(t) // before which nobody is answered on TCP
	tcp := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer tcp.CloseIdleConnections()
	if got := get(tcp, "https://"+r.manager.Addr().String()+"/debug/pprof/cmdline"); got != http.StatusNotFound {
		t.Errorf("on TCP: %d", got)
	}
}

// asManager makes the test binary a manager over the folder that the variable names.
const asManager = "WARREN_TEST_MANAGER"

func TestMain(m *testing.M) {
	dir := os.Getenv(asManager)
	if dir == "" {
		os.Exit(m.Run())
	}
	running, err := manager.New(context.Background(), manager.Options{
		DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "m.sock"),
		Status: func(string) { fmt.Println("ready") }, Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = running.Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestNothingAcknowledgedIsLostWhenTheManagerIsKilled(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	for round := range 3 {
		killed := startProcess(t, dir)
		r := dial(t, filepath.Join(dir, "m.sock"))
		if round == 0 {
			r.init(t)
		}
		await(t, "the manager to lead", func(ctx context.Context) error {
			_, err := r.services.ListServices(ctx, connect.NewRequest(&warrenv1.ListServicesRequest{}))
			return err
		})
		var callers sync.WaitGroup
		for caller := range 4 {
			callers.Go(func() {
				for n := 0; ; n++ {
					name := fmt.Sprintf("web-%d-%d-%d", round, caller, n)
					if _, err := r.services.CreateService(t.Context(), create(name, 1)); err != nil {
						return
					}
					mu.Lock()
					acknowledged[name] = true
					enough := len(acknowledged) == 50*(round+1)
					mu.Unlock()
					if enough {
						_ = killed.Process.Signal(syscall.SIGKILL)
					}
				}
			})
		}
		callers.Wait()
		_ = killed.Process.Kill()
		_ = killed.Wait()
		if want := 50 * (round + 1); len(acknowledged) < want {
			t.Fatalf("%d services are acknowledged before anybody was killed, want %d", len(acknowledged), want)
		}
	}
	startProcess(t, dir)
	r := dial(t, filepath.Join(dir, "m.sock"))
	for name := range acknowledged {
		if _, err := r.services.GetService(t.Context(), connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// startProcess starts a manager as a process of its own and returns when it takes calls.
func startProcess(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asManager+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatalf("the manager did not start: %v", err)
	}
	go io.Copy(io.Discard, out) // until the process ends
	return cmd
}

func TestAMemberWhoseLogIsGoneDoesNotBeginAnew(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	r.init(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "data", "raft.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.New(t.Context(), options(t, dir)); err == nil || !strings.Contains(err.Error(), "no raft log") {
		t.Errorf("got %v", err)
	}
}
