package runtime

import (
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// stored finds an image in the inventory, measured.
func (b *bench) stored(digest string) (StoredImage, bool) {
	b.t.Helper()
	list, err := b.Images(b.t.Context())
	if err == nil {
		err = b.Measure(b.t.Context(), list)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	at := slices.IndexFunc(list, func(i StoredImage) bool { return i.Digest == digest })
	if at < 0 {
		return StoredImage{}, false
	}
	return list[at], true
}

func TestAnImageIsToldWithItsPiecesAndGoesWithAllItsNames(t *testing.T) {
	b := newBench(t)
	content, err := actorImage(b.lab.actor)
	if err != nil {
		t.Fatal(err)
	}
	if content, err = mutate.Config(content, v1.Config{Entrypoint: []string{"/bin/actor"}, Env: []string{"OTHER=1"}}); err != nil {
		t.Fatal(err)
	}
	if err := b.lab.push("inventory:1", content); err != nil {
		t.Fatal(err)
	}
	pulled, err := b.Pull(t.Context(), b.lab.registry+"/inventory:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pull(t.Context(), b.lab.registry+"/inventory@"+pulled.Digest, nil); err != nil {
		t.Fatal(err)
	}
	image, here := b.stored(pulled.Digest)
	if !here || len(image.Names) != 2 || !image.Pulled || !image.UnusedSince.IsZero() {
		t.Fatalf("stored %+v", image)
	}
	// Manifest, configuration, a layer as a blob and one unpacked.
	if len(image.Pieces) != 4 || image.Bytes() < 100_000 {
		t.Errorf("pieces %v", image.Pieces)
	}
	other, _ := b.stored(b.image.Digest)
	shared := 0
	for piece := range image.Pieces {
		if _, both := other.Pieces[piece]; both {
			shared++
		}
	}
	if shared != 2 {
		t.Errorf("%d pieces are shared with the image of the same layer, want 2", shared)
	}

	since := time.Now().Round(0)
	if err := b.NoteUnused(t.Context(), image, since); err != nil {
		t.Fatal(err)
	}
	if noted, _ := b.stored(pulled.Digest); !noted.UnusedSince.Equal(since) || !noted.Pulled {
		t.Errorf("noted %+v", noted)
	}
	if err := b.NoteUnused(t.Context(), image, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if noted, _ := b.stored(pulled.Digest); !noted.UnusedSince.IsZero() {
		t.Errorf("noted %+v", noted)
	}

	// Decided on before it was asked for: a task wants it.
	if removed, err := b.RemoveImages(t.Context(), []StoredImage{image}, time.Now().Add(-time.Hour)); err != nil || len(removed) != 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if removed, err := b.RemoveImages(t.Context(), []StoredImage{image}, time.Now()); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if left, here := b.stored(pulled.Digest); here {
		t.Errorf("left is %+v", left)
	}
	// What another image needs has stayed.
	c := b.container("inventory", "show")
	b.run(c)
	b.exit(c.ID)
	// It can be had again.
	if _, err := b.Pull(t.Context(), b.lab.registry+"/inventory:1", nil); err != nil {
		t.Error(err)
	}
}

func TestWhatContainersAreMadeFromAndHaveWrittenIsTold(t *testing.T) {
	b := newBench(t)
	c := b.container("written", "show")
	b.run(c)
	used, err := b.ContainersImages(t.Context())
	if err != nil || !used[b.image.Digest] || !used[b.image.Name] {
		t.Errorf("used are %v, %v", used, err)
	}
	if n, _, err := b.Written(t.Context()); err != nil || n != 1 {
		t.Errorf("%d containers, %v", n, err)
	}
	if total, free, err := b.Disk(t.Context()); err != nil || total == 0 || free > total {
		t.Errorf("%d of %d free, %v", free, total, err)
	}
	b.exit(c.ID)
}

func TestAnImageThatIsBeingRemovedIsNotTakenForPresent(t *testing.T) {
	b := newBench(t)
	// As RemoveImages does, when it has found that no task wants the image.
	unlock, err := b.images.lock(t.Context(), b.image.Name)
	if err != nil {
		t.Fatal(err)
	}
	if b.images.wantedSince(b.image.Name, time.Now()) {
		t.Fatal("it is wanted already")
	}
	asked, pulled := make(chan struct{}), make(chan error, 1)
	ask := sync.OnceFunc(func() { close(asked) })
	go func() {
		_, err := b.Pull(t.Context(), b.image.Name, func(string) { ask() })
		pulled <- err
	}()
	for wanted := false; !wanted; {
		b.images.mu.Lock()
		_, wanted = b.images.wanted[b.image.Name]
		b.images.mu.Unlock()
		goruntime.Gosched()
	}
	if err := b.client.ImageService().Delete(b.context(t.Context()), b.image.Name); err != nil {
		t.Fatal(err)
	}
	b.images.forget(b.image.Digest)
	unlock()
	if err := <-pulled; err != nil {
		t.Error(err)
	}
	select {
	case <-asked:
	default:
		t.Error("the registry was not asked")
	}
}
