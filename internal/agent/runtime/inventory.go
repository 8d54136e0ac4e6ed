package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Labels of images in containerd.
const (
	labelPulled      = "warren.pulled"       // brought here by an agent, for a task
	labelUnusedSince = "warren.unused-since" // when it was first seen that no task uses it
)

// StoredImage is an image that is here, with all the names it has.
type StoredImage struct {
	Digest string
	Names  []string
	// Pulled says that an agent brought it here for a task.
	Pulled bool
	// UnusedSince is what NoteUnused was last told; zero where it is used.
	UnusedSince time.Time
	// Pieces are what it is made of, blobs and unpacked layers, with the bytes of each. Images share them.
	Pieces map[string]int64

	target imagespec.Descriptor
}

// Bytes is the size of all pieces.
func (i StoredImage) Bytes() (sum int64) {
	for _, size := range i.Pieces {
		sum += size
	}
	return sum
}

// FullName is the name under which an image is here that users write as they like; itself where it is no image's name.
func FullName(image string) string {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return image
	}
	return named.String()
}

// Images lists the images that are here, without their pieces, by name.
func (r *Runtime) Images(ctx context.Context) ([]StoredImage, error) {
	var records []images.Image
	err := r.do(ctx, func(ctx context.Context) (err error) {
		records, err = r.client.ImageService().List(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	byDigest := map[string]*StoredImage{}
	var digests []string
	for _, record := range records {
		key := record.Target.Digest.String()
		image := byDigest[key]
		if image == nil {
			image = &StoredImage{Digest: key, target: record.Target}
			byDigest[key] = image
			digests = append(digests, key)
		}
		image.Names = append(image.Names, record.Name)
		image.Pulled = image.Pulled || record.Labels[labelPulled] != ""
		// What does not parse was not written by us.
		if since, err := time.Parse(time.RFC3339Nano, record.Labels[labelUnusedSince]); err == nil && since.After(image.UnusedSince) {
			image.UnusedSince = since
		}
	}
	all := make([]StoredImage, 0, len(digests))
	for _, key := range digests {
		slices.Sort(byDigest[key].Names)
		all = append(all, *byDigest[key])
	}
	slices.SortFunc(all, func(a, b StoredImage) int { return cmp.Compare(a.Names[0], b.Names[0]) })
	return all, nil
}

// Measure finds out what images are made of.
func (r *Runtime) Measure(ctx context.Context, list []StoredImage) error {
	err := r.do(ctx, func(ctx context.Context) error {
		blobs, layers := map[digest.Digest]int64{}, map[string]int64{}
		err := r.client.ContentStore().Walk(ctx, func(info content.Info) error {
			blobs[info.Digest] = info.Size
			return nil
		})
		if err != nil {
			return err
		}
		if err := r.eachSnapshot(ctx, snapshots.KindCommitted, func(name string, bytes int64) { layers[name] = bytes }); err != nil {
			return err
		}
		for i := range list {
			list[i].Pieces = map[string]int64{}
			if err := r.pieces(ctx, list[i].target, blobs, layers, list[i].Pieces); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("measure images: %w", err)
	}
	return nil
}

// pieces adds what a blob and those that it refers to are, as far as they are here: other platforms' are not.
func (r *Runtime) pieces(ctx context.Context, at imagespec.Descriptor, blobs map[digest.Digest]int64, layers map[string]int64, into map[string]int64) error {
	size, here := blobs[at.Digest]
	if !here || into[at.Digest.String()] != 0 {
		return nil
	}
	into[at.Digest.String()] = size
	if images.IsConfigType(at.MediaType) {
		return r.layers(ctx, at, layers, into)
	}
	children, err := images.Children(ctx, r.client.ContentStore(), at)
	if errdefs.IsNotFound(err) { // it has just been removed
		return nil
	}
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := r.pieces(ctx, child, blobs, layers, into); err != nil {
			return err
		}
	}
	return nil
}

// layers adds the unpacked layers of an image, which its configuration names.
func (r *Runtime) layers(ctx context.Context, config imagespec.Descriptor, layers, into map[string]int64) error {
	blob, err := content.ReadBlob(ctx, r.client.ContentStore(), config)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var whole imagespec.Image
	if err := json.Unmarshal(blob, &whole); err != nil {
		return nil //nolint:nilerr // not an image's: it has no layers
	}
	for n := range whole.RootFS.DiffIDs {
		chain := identity.ChainID(slices.Clone(whole.RootFS.DiffIDs[:n+1])).String()
		if size, here := layers[chain]; here {
			into["layer "+chain] = size
		}
	}
	return nil
}

// eachSnapshot tells the size of each of our snapshots of a kind.
func (r *Runtime) eachSnapshot(ctx context.Context, kind snapshots.Kind, tell func(name string, bytes int64)) error {
	snapshotter := r.client.SnapshotService(r.options.Snapshotter)
	var names []string
	err := snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == kind {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		usage, err := snapshotter.Usage(ctx, name)
		if errdefs.IsNotFound(err) {
			continue // it has just been removed
		}
		if err != nil {
			return err
		}
		tell(name, usage.Size)
	}
	return nil
}

// Written tells how many containers there are, and how many bytes they have written to their root file systems.
func (r *Runtime) Written(ctx context.Context) (containers int, bytes int64, err error) {
	err = r.do(ctx, func(ctx context.Context) error {
		containers, bytes = 0, 0
		return r.eachSnapshot(ctx, snapshots.KindActive, func(_ string, size int64) {
			containers++
			bytes += size
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measure what containers have written: %w", err)
	}
	return containers, bytes, nil
}

// ContainersImages are the digests and names of the images that containers are made from, whether or not they run.
func (r *Runtime) ContainersImages(ctx context.Context) (map[string]bool, error) {
	used := map[string]bool{}
	err := r.do(ctx, func(ctx context.Context) error {
		records, err := r.client.ContainerService().List(ctx)
		for _, record := range records {
			used[record.Image] = true
			used[record.Labels[labelDigest]] = true
		}
		return err
	})
	delete(used, "")
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return used, nil
}

// Disk tells how large the file system is that holds images and containers, and what is free of it.
func (r *Runtime) Disk(ctx context.Context) (total, free uint64, err error) {
	err = r.do(ctx, func(ctx context.Context) error {
		plugins, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+r.options.Snapshotter)
		for _, plugin := range plugins.GetPlugins() {
			total, free = diskSize(plugin.GetExports()["root"])
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("find the disk of containerd: %w", err)
	}
	return total, free, nil
}

// NoteUnused keeps since when no task uses an image; the zero time says that one does.
func (r *Runtime) NoteUnused(ctx context.Context, image StoredImage, since time.Time) error {
	value := ""
	if !since.IsZero() {
		value = since.UTC().Format(time.RFC3339Nano)
	}
	for _, name := range image.Names {
		err := r.do(ctx, func(ctx context.Context) error {
			_, err := r.client.ImageService().Update(ctx, images.Image{Name: name, Labels: map[string]string{labelUnusedSince: value}}, "labels."+labelUnusedSince)
			return err
		})
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("label image %s: %w", name, err)
		}
	}
	return nil
}

// RemoveImages removes images, and returns those that it has removed, when their space is free. One that was asked for
// after decided stays: a task has come that wants it.
func (r *Runtime) RemoveImages(ctx context.Context, list []StoredImage, decided time.Time) ([]StoredImage, error) {
	var removed []StoredImage
	var failed error
	for _, image := range list {
		gone, err := r.removeImage(ctx, image, decided)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("remove image %s: %w", image.Names[0], err))
		} else if gone {
			removed = append(removed, image)
		}
	}
	if len(removed) > 0 {
		r.collectGarbage(ctx)
	}
	return removed, failed
}

// removeImage removes all names of an image. Containers that are made from it keep their layers.
func (r *Runtime) removeImage(ctx context.Context, image StoredImage, decided time.Time) (gone bool, err error) {
	for _, name := range image.Names {
		unlock, err := r.images.lock(ctx, name)
		if err != nil {
			return false, err
		}
		wanted := r.images.wantedSince(name, decided)
		if !wanted {
			err = r.do(ctx, func(ctx context.Context) error { return r.client.ImageService().Delete(ctx, name) })
		}
		unlock()
		if wanted {
			return false, nil
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return false, err
		}
	}
	// Also where a name of it has come meanwhile: it is then looked at anew.
	r.images.forget(image.Digest)
	return true, nil
}

// want notes that a name is asked for now.
func (c *imageCache) want(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted[name] = time.Now()
}

// wantedSince tells whether a name has been asked for since; the name is forgotten where not.
func (c *imageCache) wantedSince(name string, since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, known := c.wanted[name]; known && !at.Before(since) {
		return true
	}
	delete(c.wanted, name)
	return false
}

// pulledLabels are the labels of another name of an image.
func pulledLabels(image images.Image) map[string]string {
	if image.Labels[labelPulled] == "" {
		return nil
	}
	return map[string]string{labelPulled: image.Labels[labelPulled]}
}
