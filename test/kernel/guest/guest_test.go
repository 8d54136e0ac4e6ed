//go:build linux

package guest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
)

// awaitAtMost is far above what anything takes here: everything is emulated, and the host may be busy.
const awaitAtMost = 4 * time.Minute

// TestScripts installs Warren, tells the stories of a cluster of this machine, and then that of its end.
func TestScripts(t *testing.T) {
	if os.Getenv("WARREN_TEST_GUEST") == "" {
		t.Skip("it takes over the machine it runs on: \"make test-kernel\" boots one for it")
	}
	if err := makeUplink(t.Context()); err != nil {
		t.Fatal(err)
	}
	hello := serveImage(t)
	t.Cleanup(func() { logJournals(t) })
	if err := install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := startCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	tellStories(t, "scripts", hello, func() {
		if err := removeServices(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	tellStories(t, "purge", hello, func() {})
}

// tellStories runs the scripts in a folder, which may have none that was chosen, and something after each. It returns when
// all have ended.
func tellStories(t *testing.T, folder, hello string, afterwards func()) {
	scripts, err := filepath.Glob(filepath.Join(folder, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) == 0 {
		return
	}
	t.Run(folder, func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Files:              scripts,
			RequireUniqueNames: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("HELLO", hello)
				env.Defer(afterwards)
				return nil
			},
			Cmds: commands,
		})
	})
}

// makeUplink gives the machine, which has no network, a way out that leads nowhere, and a file in which there are no
// resolvers: an agent goes by both.
func makeUplink(ctx context.Context) error {
	for _, args := range [][]string{
		{"modprobe", "dummy", "numdummies=0"},
		{"ip", "link", "add", "eth0", "type", "dummy"},
		{"ip", "address", "add", "192.0.2.1/24", "dev", "eth0"},
		{"ip", "link", "set", "eth0", "up"},
		{"ip", "route", "add", "default", "via", "192.0.2.254"},
	} {
		if _, err := run(ctx, args[0], args[1:]...); err != nil {
			return err
		}
	}
	return os.WriteFile("/etc/resolv.conf", nil, 0o644)
}

// serveImage starts a registry with the test image and returns what it is to be called.
func serveImage(t *testing.T) string {
	server := httptest.NewServer(registry.New(registry.Logger(quiet)))
	t.Cleanup(server.Close)
	reference := strings.TrimPrefix(server.URL, "http://") + "/hello:1"
	hello, err := tarball.ImageFromPath("hello.tar", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Push(t.Context(), hello, reference, http.DefaultTransport); err != nil {
		t.Fatal(err)
	}
	return reference
}

// install does what a user would, offline: Warren's packages start their daemons.
func install(ctx context.Context) error {
	packages, err := filepath.Glob("packages/*.deb")
	if err != nil {
		return err
	}
	args := []string{"--quiet", "--yes", "install"}
	for _, path := range packages {
		args = append(args, "./"+path)
	}
	_, err = run(ctx, "apt-get", args...)
	return err
}

// startCluster makes this machine a cluster of one node. It returns when that is ready.
func startCluster(ctx context.Context) error {
	if _, err := run(ctx, "warrenctl", "cluster", "init"); err != nil {
		return err
	}
	token, err := run(ctx, "warrenctl", "cluster", "join-token", "--quiet", "worker")
	if err != nil {
		return err
	}
	if _, err := run(ctx, "warrenctl", "cluster", "join", "--token", strings.TrimSpace(token), "127.0.0.1:7420"); err != nil {
		return err
	}
	return cluster.AwaitWithin(ctx, awaitAtMost, "the node to be ready", func(ctx context.Context) error {
		nodes, err := run(ctx, "warrenctl", "node", "ls", "--format", "{{.Status}}")
		if err == nil && strings.TrimSpace(nodes) != "Ready" {
			err = fmt.Errorf("it is %q", nodes)
		}
		return err
	})
}

// removeServices removes what a story that did not come to its end has left, so that the next one does not
// meet it.
func removeServices(ctx context.Context) error {
	services, err := run(ctx, "warrenctl", "service", "ls", "--quiet")
	if err != nil || services == "" {
		return err
	}
	_, err = run(ctx, "warrenctl", append([]string{"service", "rm"}, strings.Fields(services)...)...)
	return err
}

// run runs a command and returns what it printed. An error holds what it printed too.
func run(ctx context.Context, name string, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(output))
	}
	return string(output), nil
}

// logJournals tells what the daemons said where a story did not go well.
func logJournals(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, unit := range []string{"warren-manager", "warren-agent", "containerd"} {
		journal, err := run(context.WithoutCancel(t.Context()), "journalctl", "--unit", unit, "--output", "short-monotonic", "--no-pager", "--lines", "60")
		t.Logf("%s: %v\n%s", unit, err, journal)
	}
}
