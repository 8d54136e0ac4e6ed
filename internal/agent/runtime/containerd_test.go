package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/cuemby/warren/internal/agent/logs"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// daemon is a containerd of the tests' own, with its own folders and socket.
type daemon struct {
	dir     string
	address string

	mu      sync.Mutex
	process *exec.Cmd
}

func startDaemon(dir string) (*daemon, error) {
	d := &daemon{dir: dir, address: filepath.Join(dir, "containerd.sock")}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.address)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	return d, d.start()
}

func (d *daemon) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process = exec.Command("containerd", "--config", filepath.Join(d.dir, "config.toml"))
	output, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	d.process.Stderr = output
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return d.process.Start()
}

// kill ends containerd as a crash would.
func (d *daemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process.Process.Kill()
	d.process.Wait()
}

// lab is what the tests of this package share.
type lab struct {
	*daemon
	registry string // host:port
	actor    string // path of the program in the image
}

var shared struct {
	once sync.Once
	lab  *lab
	err  error
	dir  string
	web  *httptest.Server
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.lab != nil {
		shared.lab.kill()
	}
	if shared.web != nil {
		shared.web.Close()
	}
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
		// What containers were in and runc kept of their namespaces; all of it is empty by now.
		for _, pattern := range []string{"/sys/fs/cgroup" + cgroupParent(shared.dir), "/sys/fs/cgroup/*" + cgroupParent(shared.dir), "/run/containerd/runc/" + namespacePrefix(shared.dir) + "*"} {
			left, _ := filepath.Glob(pattern) // the patterns are good
			for _, dir := range left {
				os.Remove(dir)
			}
		}
	}
	os.Exit(code)
}

func cgroupParent(dir string) string { return "/warren-test-" + filepath.Base(dir) }

func namespacePrefix(dir string) string { return "warren-" + filepath.Base(dir) + "-" }

// startLab starts containerd and a registry with the image test:1, the first time it is called. It skips
// the test where there is no root or no containerd.
func startLab(t testing.TB) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it runs containers")
	}
	for _, program := range []string{"containerd", "runc", "containerd-shim-runc-v2"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs containerd and runc: ", err)
		}
	}
	shared.once.Do(func() { shared.lab, shared.err = newLab() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.lab
}

func newLab() (*lab, error) {
	// A short path: sockets have room for 108 bytes.
	dir, err := os.MkdirTemp("", "wrt")
	if err != nil {
		return nil, err
	}
	shared.dir = dir
	l := &lab{actor: filepath.Join(dir, "actor")}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", l.actor, "./testdata/actor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build actor: %w: %s", err, output)
	}
	shared.web = httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	l.registry = strings.TrimPrefix(shared.web.URL, "http://")
	image, err := actorImage(l.actor)
	if err != nil {
		return nil, err
	}
	if err := l.push("test:1", image); err != nil {
		return nil, err
	}
	l.daemon, err = startDaemon(dir)
	return l, err
}

func (l *lab) push(image string, content v1.Image) error {
	reference, err := name.ParseReference(l.registry + "/" + image)
	if err != nil {
		return err
	}
	return remote.Write(reference, content)
}

// actorImage is one layer: the actor, and users to be looked up.
func actorImage(program string) (v1.Image, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, file := range []struct {
		name string
		mode int64
		text []byte
	}{
		{"bin/actor", 0o755, binary},
		{"etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")},
		{"etc/group", 0o644, []byte("root:x:0:\napp:x:1001:\nmedia:x:2000:app\naudio:x:2001:\n")},
	} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.text)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	tarred, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, tarred)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = v1.Config{
		Entrypoint: []string{"/bin/actor"},
		Cmd:        []string{"sleep"},
		Env:        []string{"FROM=image", "COLOUR=red"},
		StopSignal: "SIGINT",
	}
	return mutate.ConfigFile(image, config)
}

// bench is one test's runtime, with what it hears.
type bench struct {
	*Runtime
	t      testing.TB
	lab    *lab
	store  *logs.Store
	image  Image
	exits  chan Exit
	resync chan struct{}
}

func testOptions(t testing.TB, l *lab) Options {
	t.Helper()
	dir := t.TempDir()
	store, err := logs.Open(filepath.Join(dir, "logs"))
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Address:      l.address,
		Namespace:    namespacePrefix(l.dir) + strings.ToLower(rand.Text()[:8]),
		StateDir:     filepath.Join(dir, "state"),
		CgroupParent: cgroupParent(l.dir),
		InitBinary:   l.actor,
		Logs:         store,
		Logger:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// openBench opens a runtime whose containers are gone, and proven to be, when the test ends.
func openBench(t testing.TB, o Options) *bench {
	t.Helper()
	l := shared.lab
	runtime, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Runtime: runtime, t: t, lab: l, store: o.Logs, exits: make(chan Exit, 1024), resync: make(chan struct{}, 64)}
	ctx, cancel := context.WithCancel(context.Background())
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		runtime.Events(ctx, func(e Event) {
			switch e := e.(type) {
			case Exit:
				b.exits <- e
			case Resync:
				b.resync <- struct{}{}
			}
		})
	}()
	t.Cleanup(func() {
		b.removeAll()
		cancel()
		<-listening
		if err := runtime.Close(); err != nil {
			t.Error(err)
		}
	})
	b.heardResync()
	return b
}

func newBench(t testing.TB) *bench {
	t.Helper()
	l := startLab(t)
	b := openBench(t, testOptions(t, l))
	image, err := b.Pull(t.Context(), l.registry+"/test:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.image = image
	return b
}

// removeAll ends the test's containers and checks that nothing of them is left.
func (b *bench) removeAll() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	found, err := b.List(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range found {
		if err := b.Remove(ctx, c.ID); err != nil {
			b.t.Error(err)
		}
	}
	for _, c := range found {
		b.assertGone(c.ID)
	}
}

// assertGone fails if anything of a container exists.
func (b *bench) assertGone(id string) {
	b.t.Helper()
	ctx := b.context(context.Background())
	if _, err := b.client.ContainerService().Get(ctx, id); err == nil {
		b.t.Errorf("container %s is still there", id)
	}
	if _, err := b.client.SnapshotService("overlayfs").Stat(ctx, id); err == nil {
		b.t.Errorf("the snapshot of %s is still there", id)
	}
	for _, pattern := range []string{
		b.containerPath(id),
		filepath.Join("/sys/fs/cgroup/*", b.options.CgroupParent, id),
		filepath.Join("/sys/fs/cgroup", b.options.CgroupParent, id),
		filepath.Join(b.lab.dir, "state", "*", b.options.Namespace, id),
		filepath.Join("/run/containerd/runc", b.options.Namespace, id),
	} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			b.t.Errorf("left over: %v %v", left, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		b.t.Fatal(err)
	}
	if strings.Contains(string(mounts), b.options.Namespace+"/"+id+"/") || strings.Contains(string(mounts), b.options.StateDir) {
		b.t.Errorf("a mount of %s is left", id)
	}
}

// container is a task that runs the actor with arguments.
func (b *bench) container(taskID string, args ...string) Container {
	return Container{
		ID: taskID + "-1", TaskID: taskID, TaskName: "web.3", ServiceID: "service", ServiceName: "web",
		NodeID: "node1", NodeHostname: "machine", Slot: 3, Attempt: 1, Image: b.image,
		Spec: &warrenv1.TaskSpec{
			Container: &warrenv1.ContainerSpec{Image: b.image.Name, Args: args}, Network: warrenv1.NetworkMode_NETWORK_MODE_NONE,
		},
	}
}

// run creates and starts a container.
func (b *bench) run(c Container) {
	b.t.Helper()
	if _, err := b.Create(b.t.Context(), c); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Start(b.t.Context(), c.ID); err != nil {
		b.t.Fatal(err)
	}
}

const patience = 20 * time.Second

// exit waits for a container's end.
func (b *bench) exit(id string) Exit {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-b.exits:
			if e.ID == id {
				return e
			}
		case <-deadline:
			b.t.Fatalf("container %s did not end", id)
		}
	}
}

func (b *bench) heardResync() {
	b.t.Helper()
	select {
	case <-b.resync:
	case <-time.After(patience):
		b.t.Fatal("no resync")
	}
}

// output returns what a task has written, stdout and stderr together.
func (b *bench) output(taskID string) string {
	b.t.Helper()
	var text strings.Builder
	err := b.store.Read(b.t.Context(), taskID, nil, func(lines []*warrenv1.LogLine, _ bool) error {
		for _, line := range lines {
			text.Write(line.GetLine())
			if !line.GetPartial() {
				text.WriteByte('\n')
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return text.String()
}

// awaitOutput waits until a task has written a text.
func (b *bench) awaitOutput(taskID, text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	found := fmt.Errorf("found")
	err := b.store.Read(ctx, taskID, &warrenv1.LogSelection{Follow: true}, func(lines []*warrenv1.LogLine, _ bool) error {
		for _, line := range lines {
			if strings.Contains(string(line.GetLine()), text) {
				return found
			}
		}
		return nil
	})
	if !strings.Contains(fmt.Sprint(err), "found") {
		b.t.Fatalf("task %s did not write %q: %v; it wrote %q", taskID, text, err, b.output(taskID))
	}
}
