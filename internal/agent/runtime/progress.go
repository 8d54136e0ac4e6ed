package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// progressInterval keeps reports of progress from becoming work of their own.
const progressInterval = 200 * time.Millisecond

// meter counts the bytes of a pull as they come, against those of the layers that are missing here.
type meter struct {
	report func(string)
	store  content.InfoProvider

	mu          sync.Mutex
	total, done int64
	counted     map[string]bool
	reported    time.Time
}

func newMeter(report func(string), store content.InfoProvider) *meter {
	return &meter{report: report, store: store, counted: make(map[string]bool)}
}

// Handle meets every part of an image before it is fetched, and knows its size from the manifest.
func (m *meter) Handle(ctx context.Context, part imagespec.Descriptor) ([]imagespec.Descriptor, error) {
	if !images.IsLayerType(part.MediaType) {
		return nil, checkDescription(part)
	}
	if _, err := m.store.Info(ctx, part.Digest); errdefs.IsNotFound(err) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.counted[part.Digest.String()] {
			m.counted[part.Digest.String()] = true
			m.total += part.Size
		}
	}
	return nil, nil
}

// largestDescription is how much an image may say of itself: it is read into memory. Registries take manifests of 4 MiB at most;
// configurations, of a few KiB, are as long as whoever builds an image likes.
const largestDescription = 8 << 20

func checkDescription(part imagespec.Descriptor) error {
	described := images.IsManifestType(part.MediaType) || images.IsIndexType(part.MediaType) || images.IsConfigType(part.MediaType)
	if described && part.Size > largestDescription {
		return fmt.Errorf("the image describes itself in %d bytes of %s, which is more than %d", part.Size, part.MediaType, largestDescription)
	}
	return nil
}

// add counts bytes of a layer that came, or, below zero, that will come again.
func (m *meter) add(layer imagespec.Descriptor, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counted[layer.Digest.String()] {
		return
	}
	m.done += n
	if now := time.Now(); now.Sub(m.reported) >= progressInterval {
		m.reported = now
		m.report(progressText(m.done, m.total))
	}
}

func progressText(done, total int64) string {
	if total <= 0 {
		return "pulling"
	}
	if done >= total {
		return "unpacking"
	}
	const mb = 1_000_000
	return fmt.Sprintf("pulling %d %% (%.1f of %.1f MB)", 100*max(done, 0)/total, float64(max(done, 0))/mb, float64(total)/mb)
}

// meteredResolver has the meter read along.
type meteredResolver struct {
	remotes.Resolver
	meter *meter
}

// Fetcher returns a fetcher whose readers are metered.
func (r meteredResolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	fetcher, err := r.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, part imagespec.Descriptor) (io.ReadCloser, error) {
		body, err := fetcher.Fetch(ctx, part)
		if err != nil {
			return nil, err
		}
		return &meteredReader{ReadCloser: body, meter: r.meter, part: part}, nil
	}), nil
}

type meteredReader struct {
	io.ReadCloser
	meter *meter
	part  imagespec.Descriptor
	at    int64
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.at += int64(n)
	r.meter.add(r.part, int64(n))
	return n, err
}

// Seek lets an interrupted download go on where it was.
func (r *meteredReader) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := r.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("this registry's answer cannot be resumed")
	}
	at, err := seeker.Seek(offset, whence)
	if err == nil {
		r.meter.add(r.part, at-r.at)
		r.at = at
	}
	return at, err
}

// isPlatformError recognises containerd's words for an image without a manifest for this machine.
func isPlatformError(err error) bool {
	return strings.Contains(err.Error(), "no match for platform")
}
