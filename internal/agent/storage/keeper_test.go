package storage

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// engine keeps images in memory.
type engine struct {
	mu      sync.Mutex
	images  []runtime.StoredImage
	sizes   map[string]map[string]int64
	inUse   map[string]bool // by containers
	total   uint64
	free    uint64
	written int64
	pulled  map[string]bool // digests that are asked for while they are to go
}

func (e *engine) Images(context.Context) ([]runtime.StoredImage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.images), nil
}

func (e *engine) Measure(_ context.Context, list []runtime.StoredImage) error {
	for i := range list {
		list[i].Pieces = e.sizes[list[i].Digest]
	}
	return nil
}

func (e *engine) NoteUnused(_ context.Context, image runtime.StoredImage, since time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.images {
		if e.images[i].Digest == image.Digest {
			e.images[i].UnusedSince = since
		}
	}
	return nil
}

func (e *engine) RemoveImages(_ context.Context, list []runtime.StoredImage, _ time.Time) (removed []runtime.StoredImage, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, image := range list {
		if !e.pulled[image.Digest] {
			removed = append(removed, image)
			e.images = slices.DeleteFunc(e.images, func(i runtime.StoredImage) bool { return i.Digest == image.Digest })
		}
	}
	return removed, nil
}

func (e *engine) ContainersImages(context.Context) (map[string]bool, error) {
	used := map[string]bool{}
	for name := range e.inUse {
		used[name] = true
	}
	return used, nil
}

func (e *engine) Written(context.Context) (int, int64, error)        { return 2, e.written, nil }
func (e *engine) Disk(context.Context) (total, free uint64, _ error) { return e.total, e.free, nil }

// shelf is a keeper of three images: web that a task runs, old that an ended one ran, and lost that none did.
func shelf(t *testing.T) (*Keeper, *engine) {
	t.Helper()
	e := &engine{
		images: []runtime.StoredImage{
			{Digest: "sha256:lost", Names: []string{"docker.io/library/lost:1"}, Pulled: true},
			{Digest: "sha256:old", Names: []string{"docker.io/library/web@sha256:old"}, Pulled: true},
			{Digest: "sha256:web", Names: []string{"docker.io/library/web:1"}, Pulled: true},
		},
		sizes: map[string]map[string]int64{
			"sha256:lost": {"lost": 40, "base": 100}, "sha256:old": {"old": 20, "base": 100}, "sha256:web": {"web": 10, "base": 100},
		},
		total: 1000, free: 500, written: 7,
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "logs", "t1"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"agent.db", "logs/t1/0"} {
		if err := os.WriteFile(filepath.Join(dir, path), make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := New(Options{
		Engine: e, Retention: time.Hour, DataDir: dir, OutputDir: filepath.Join(dir, "logs"), Logger: slog.New(slog.DiscardHandler),
		Tasks: func() []supervisor.Look {
			return []supervisor.Look{
				{Image: "web:1", Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING}},
				{Image: "web:0", ImageDigest: "sha256:old", Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_SHUTDOWN}},
			}
		},
	})
	return k, e
}

func (e *engine) left() (all []string) {
	for _, i := range e.images {
		all = append(all, i.Digest)
	}
	return all
}

func TestAnUnusedImageGoesOnceItsTimeIsOver(t *testing.T) {
	t.Parallel()
	k, e := shelf(t)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 3}, {59 * time.Minute, 3}, {time.Hour, 1}} {
		if err := k.tidy(t.Context(), now.Add(step.after)); err != nil {
			t.Fatal(err)
		}
		if len(e.images) != step.want {
			t.Errorf("after %v there are %v", step.after, e.left())
		}
	}
	if got := e.left(); !slices.Equal(got, []string{"sha256:web"}) {
		t.Errorf("left are %v", got)
	}
}

func TestAnImageThatIsUsedAgainBeginsANewTime(t *testing.T) {
	t.Parallel()
	k, e := shelf(t)
	tidy := func(after time.Duration) {
		t.Helper()
		if err := k.tidy(t.Context(), now.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	tidy(0)
	e.inUse = map[string]bool{"sha256:lost": true}
	tidy(30 * time.Minute)
	e.inUse = nil
	tidy(61 * time.Minute)
	if got := e.left(); !slices.Contains(got, "sha256:lost") {
		t.Errorf("left are %v", got)
	}
}

func TestAFullDiskSparesWhatARollbackMayWant(t *testing.T) {
	t.Parallel()
	k, e := shelf(t)
	e.free = 10
	if err := k.tidy(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if got := e.left(); !slices.Equal(got, []string{"sha256:old", "sha256:web"}) {
		t.Errorf("left are %v", got)
	}
}

func TestPruningTellsWhatItFreesAndLeavesWhatIsUsed(t *testing.T) {
	t.Parallel()
	k, e := shelf(t)
	e.images[0].Pulled = false // whoever brought it
	for _, dryRun := range []bool{true, false} {
		pruned, err := k.Prune(t.Context(), dryRun)
		if err != nil || len(pruned.GetImages()) != 2 || pruned.GetFreedBytes() != 60 {
			t.Errorf("dry run %v: %v, %v", dryRun, pruned, err)
		}
		if want := map[bool]int{true: 3, false: 1}[dryRun]; len(e.images) != want {
			t.Errorf("dry run %v leaves %v", dryRun, e.left())
		}
	}
}

func TestWhatIsWantedAgainWhileItIsToGoIsNotCountedAsFreed(t *testing.T) {
	t.Parallel()
	k, e := shelf(t)
	e.pulled = map[string]bool{"sha256:lost": true}
	pruned, err := k.Prune(t.Context(), false)
	if err != nil || len(pruned.GetImages()) != 1 || pruned.GetFreedBytes() != 20 {
		t.Errorf("%v, %v", pruned, err)
	}
}

func TestTheDiskIsToldByWhatTakesItUp(t *testing.T) {
	t.Parallel()
	k, _ := shelf(t)
	d, err := k.Disk(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.GetTotalBytes() != 1000 || d.GetFreeBytes() != 500 || d.GetImageBytes() != 170 || d.GetReclaimableImageBytes() != 60 ||
		d.GetContainers() != 2 || d.GetContainerBytes() != 7 || d.GetOutputs() != 1 || len(d.GetImages()) != 3 {
		t.Errorf("%v", d)
	}
	if d.GetOutputBytes() < 64<<10 || d.GetDataBytes() < 64<<10 || d.GetDataBytes() > 127<<10 {
		t.Errorf("output takes %d, data %d", d.GetOutputBytes(), d.GetDataBytes())
	}
}

func TestTidyingGoesOnUntilItIsToldToEnd(t *testing.T) {
	t.Parallel()
	k, e := shelf(t)
	k.Retention = time.Nanosecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.Run(ctx)
	}()
	deadline := time.After(20 * time.Second)
	for gone := false; !gone; {
		select {
		case <-deadline:
			t.Fatal("nothing was removed")
		case <-time.After(20 * time.Millisecond):
		}
		list, _ := e.Images(ctx)
		gone = len(list) == 1
	}
	cancel()
	<-ended
}
