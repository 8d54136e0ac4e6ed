package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/cuemby/warren/internal/agent/logs"
)

// openAlone opens a runtime without a containerd, as an agent does whose containerd is down.
func openAlone(t *testing.T, stateDir string) *Runtime {
	t.Helper()
	store, err := logs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), Options{Address: filepath.Join(t.TempDir(), "nobody.sock"), StateDir: stateDir, Logs: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// imageView is an image's files and what mounts them, as a snapshotter's view of one layer does.
func imageView(t *testing.T) (dir string, view []mount.Mount) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "passwd"), []byte("root:x:0:0::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, []mount.Mount{{Type: "bind", Source: dir, Options: []string{"ro", "rbind"}}}
}

func mountsBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if target := strings.Fields(line)[1]; strings.HasPrefix(target, dir+"/") {
			found = append(found, target)
		}
	}
	return found
}

func TestAnImageIsMountedWhileItIsLookedIntoAndNoLonger(t *testing.T) {
	dir, view := imageView(t)
	state := t.TempDir()
	r := openAlone(t, state)
	refused := errors.New("as it was said")
	for range 2 {
		err := r.withMounted(view, "task-1", func(root string) error {
			if got := mountsBelow(t, state); len(got) != 1 || got[0] != root {
				t.Errorf("mounted are %q, want %s alone", got, root)
			}
			if _, err := os.ReadFile(filepath.Join(root, "passwd")); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
				t.Errorf("writing into the image gave %v", err)
			}
			return refused
		})
		if !errors.Is(err, refused) || err.Error() != refused.Error() {
			t.Errorf("got %v, want what the reader said", err)
		}
	}
	missing := []mount.Mount{{Type: "bind", Source: filepath.Join(dir, "missing"), Options: []string{"ro", "rbind"}}}
	if err := r.withMounted(missing, "task-2", nil); err == nil || !strings.Contains(err.Error(), "look into the image") {
		t.Errorf("mounting what is not there gave %v", err)
	}
	if left, err := os.ReadDir(r.imageRoots()); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestWhatAKilledAgentLeftMountedIsUnmountedByTheNext(t *testing.T) {
	dir, view := imageView(t)
	state := t.TempDir()
	killed := openAlone(t, state)
	roots := []string{"before-mounting", "mounted", "mounted-and-open", "mounted-twice"}
	for _, name := range roots {
		if err := os.MkdirAll(filepath.Join(killed.imageRoots(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append(roots[1:], roots[3]) {
		if err := mount.All(view, filepath.Join(killed.imageRoots(), name)); err != nil {
			t.Fatal(err)
		}
	}
	open, err := os.Open(filepath.Join(killed.imageRoots(), "mounted-and-open", "passwd"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	next := openAlone(t, state)
	if got := mountsBelow(t, state); len(got) > 0 {
		t.Errorf("still mounted are %q", got)
	}
	if left, err := os.ReadDir(next.imageRoots()); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "passwd")); err != nil {
		t.Errorf("of the image itself: %v", err)
	}
}
