package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Image is an image that is on this node, ready to run.
type Image struct {
	// Name is in full: docker.io/library/nginx:latest.
	Name string
	// Digest is what the name meant when it was pulled: sha256:….
	Digest string
	// Health is its own HEALTHCHECK; nil where it has none.
	Health *warrenv1.HealthCheck
}

// imageConfig is what containers need to know of an image. It follows from the image's digest, so it
// never changes.
type imageConfig struct {
	imagespec.ImageConfig
	architecture string
	health       *warrenv1.HealthCheck
	// chainID names the snapshot with all the image's layers.
	chainID string

	mu     sync.Mutex
	users  map[string]ocispec.User
	narrow bool // known once users are
}

// runsNarrow tells whether the image can run 32-bit programs.
func (c *imageConfig) runsNarrow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.narrow
}

// imageCache spares asking containerd for what cannot change, and pulling one name twice at once.
type imageCache struct {
	mu      sync.Mutex
	configs map[string]*imageConfig // by digest
	pulling map[string]chan struct{}
	wanted  map[string]time.Time // when each name was last asked for
}

func newImageCache() imageCache {
	return imageCache{configs: make(map[string]*imageConfig), pulling: make(map[string]chan struct{}), wanted: make(map[string]time.Time)}
}

func (c *imageCache) config(digest string) *imageConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.configs[digest]
}

func (c *imageCache) remember(digest string, config *imageConfig) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.configs[digest] = config
}

// forget is called when an image turned out not to be there as remembered.
func (c *imageCache) forget(digest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.configs, digest)
}

// lock waits until nobody else pulls a name.
func (c *imageCache) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		c.mu.Lock()
		busy := c.pulling[name]
		if busy == nil {
			done := make(chan struct{})
			c.pulling[name] = done
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.pulling, name)
				close(done)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// settled waits until nobody pulls or removes a name.
func (c *imageCache) settled(ctx context.Context, name string) error {
	c.mu.Lock()
	busy := c.pulling[name]
	c.mu.Unlock()
	if busy == nil {
		return nil
	}
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pull makes an image present and unpacked for this platform. An image that is present under the
// name is used as it is, whatever its tag: what a tag means now is asked for once for all nodes, by
// who decides what runs, and not by each node anew. An image of a digest, NAME@sha256:…, is used whatever name
// it is present under. progress may be nil; where the registry has to be
// asked it is given words for people, at once and then at most every 200 ms.
func (r *Runtime) Pull(ctx context.Context, image string, progress func(string)) (Image, error) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return Image{}, fmt.Errorf("pull image %q: not an image's name: %w", image, err)
	}
	name := named.String()
	if progress == nil {
		progress = func(string) {}
	}
	r.images.want(name)
	// Who removes it has either heard of that, or is to be done before it can be seen whether it is present.
	if err := r.images.settled(ctx, name); err != nil {
		return Image{}, fmt.Errorf("pull image %s: %w", name, err)
	}
	var present images.Image
	err = r.do(ctx, func(ctx context.Context) (err error) {
		present, err = r.present(ctx, name)
		return err
	})
	if errdefs.IsNotFound(err) {
		unlock, lockErr := r.images.lock(ctx, name)
		if lockErr != nil {
			return Image{}, fmt.Errorf("pull image %s: %w", name, lockErr)
		}
		defer unlock()
		err = r.do(ctx, func(ctx context.Context) (err error) {
			if present, err = r.present(ctx, name); errdefs.IsNotFound(err) {
				present, err = r.pull(ctx, named, progress)
			}
			return err
		})
	}
	if err != nil {
		return Image{}, fmt.Errorf("pull image %s: %w", name, err)
	}
	pulled := Image{Name: name, Digest: present.Target.Digest.String()}
	if config := r.images.config(pulled.Digest); config != nil {
		pulled.Health = config.health
	}
	return pulled, nil
}

// present returns the image of a name if it is complete, or a not-found error.
func (r *Runtime) present(ctx context.Context, name string) (images.Image, error) {
	image, err := r.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		image, err = r.presentElsewhere(ctx, name, err)
	}
	if err != nil {
		return images.Image{}, err
	}
	if r.images.config(image.Target.Digest.String()) != nil {
		return image, nil
	}
	_, err = r.loadConfig(ctx, image)
	return image, err
}

// presentElsewhere gives an image that is named by its digest, and is present under another name, that name as well: the other
// one may come to mean something else. Where there is none it returns missing.
func (r *Runtime) presentElsewhere(ctx context.Context, name string, missing error) (images.Image, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return images.Image{}, err
	}
	pinned, is := named.(reference.Digested)
	if !is {
		return images.Image{}, missing
	}
	same, err := r.client.ImageService().List(ctx, "target.digest=="+pinned.Digest().String())
	if err != nil {
		return images.Image{}, err
	}
	for _, image := range same {
		if _, err := r.loadConfig(ctx, image); errdefs.IsNotFound(err) {
			continue // not all of it is there
		} else if err != nil {
			return images.Image{}, err
		}
		image, err := r.client.ImageService().Create(ctx, images.Image{Name: name, Target: image.Target, Labels: pulledLabels(image)})
		if errdefs.IsAlreadyExists(err) {
			return r.client.ImageService().Get(ctx, name)
		}
		return image, err
	}
	return images.Image{}, missing
}

// imageConfig returns the configuration of an image that Pull returned.
func (r *Runtime) imageConfig(ctx context.Context, image Image) (*imageConfig, error) {
	if config := r.images.config(image.Digest); config != nil {
		return config, nil
	}
	found, err := r.client.ImageService().Get(ctx, image.Name)
	if err == nil && found.Target.Digest.String() != image.Digest {
		err = fmt.Errorf("the name means another image now: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Name, err)
	}
	return r.loadConfig(ctx, found)
}

// loadConfig reads an image's configuration and makes sure that its layers are unpacked.
func (r *Runtime) loadConfig(ctx context.Context, image images.Image) (*imageConfig, error) {
	store := r.client.ContentStore()
	descriptor, err := image.Config(ctx, store, platforms.Default())
	if err != nil {
		return nil, err
	}
	blob, err := content.ReadBlob(ctx, store, descriptor)
	if err != nil {
		return nil, err
	}
	var whole imagespec.Image
	if err := json.Unmarshal(blob, &whole); err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	config := &imageConfig{
		ImageConfig:  whole.Config,
		architecture: whole.Architecture,
		health:       imageHealth(blob),
		chainID:      identity.ChainID(append([]digest.Digest(nil), whole.RootFS.DiffIDs...)).String(),
		users:        make(map[string]ocispec.User),
	}
	if _, err := r.client.SnapshotService(r.options.Snapshotter).Stat(ctx, config.chainID); errdefs.IsNotFound(err) {
		if err := r.unpack(ctx, image); err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
	} else if err != nil {
		return nil, err
	}
	r.images.remember(image.Target.Digest.String(), config)
	return config, nil
}

func (r *Runtime) unpack(ctx context.Context, image images.Image) error {
	ctx, done, err := r.withLease(ctx)
	if err != nil {
		return err
	}
	defer done()
	return client.NewImage(r.client, image).Unpack(ctx, r.options.Snapshotter)
}

// pull asks the registry.
func (r *Runtime) pull(ctx context.Context, named reference.Named, progress func(string)) (images.Image, error) {
	host := reference.Domain(named)
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthCreds(func(host string) (string, string, error) {
		return credentials(ctx, r.options.DockerConfig, host)
	}))
	ctx, done, err := r.withLease(ctx)
	if err != nil {
		return images.Image{}, err
	}
	defer done()
	progress(progressText(0, 0))
	meter := newMeter(progress, r.client.ContentStore())
	image, err := r.client.Pull(ctx, named.String(),
		client.WithPullUnpack,
		client.WithPullLabel(labelPulled, "true"),
		client.WithPullSnapshotter(r.options.Snapshotter),
		client.WithImageHandler(meter),
		client.WithResolver(meteredResolver{
			Resolver: docker.NewResolver(docker.ResolverOptions{
				Hosts: docker.ConfigureDefaultRegistries(docker.WithAuthorizer(authorizer), docker.WithPlainHTTP(r.insecure.match)),
			}),
			meter: meter,
		}),
	)
	if err != nil {
		return images.Image{}, explainPull(err, host, named, r.options.DockerConfig)
	}
	if _, err := r.loadConfig(ctx, image.Metadata()); err != nil {
		return images.Image{}, err
	}
	return image.Metadata(), nil
}

// explainPull says what a failed pull means to the user. The registry's own words stay in it.
func explainPull(err error, host string, named reference.Named, dockerConfig string) error {
	status := 0
	if unexpected, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		status = unexpected.StatusCode
	}
	switch {
	case errdefs.IsUnavailable(err):
		return err // containerd is away; not the registry's answer
	case errors.Is(err, docker.ErrInvalidAuthorization), status == http.StatusUnauthorized, status == http.StatusForbidden:
		where := dockerConfig
		if where == "" {
			where = "a Docker config.json, which this agent was not given"
		}
		return fmt.Errorf("unauthorized: the image does not exist or registry %s wants (other) credentials in %s: %w", host, where, err)
	case errdefs.IsNotFound(err) && isPlatformError(err):
		return fmt.Errorf("the image has no variant for %s/%s: %w", goruntime.GOOS, goruntime.GOARCH, err)
	case errdefs.IsNotFound(err), status == http.StatusNotFound:
		// Not wrapped: for our own callers not found means that pulling is what remains to be done.
		if pinned, is := named.(reference.Digested); is {
			return fmt.Errorf("image not found: registry %s has no %s with the digest %s, and nor has this node", host, named.Name(), pinned.Digest())
		}
		return fmt.Errorf("image not found: registry %s has no %s", host, reference.TagNameOnly(named))
	}
	return err
}

// RegistryOverloaded tells whether a pull failed for what a registry says of itself and not of the image: it
// is broken or busy, and may answer otherwise later.
func RegistryOverloaded(err error) bool {
	unexpected, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err)
	return ok && (unexpected.StatusCode >= http.StatusInternalServerError ||
		unexpected.StatusCode == http.StatusTooManyRequests || unexpected.StatusCode == http.StatusRequestTimeout)
}
