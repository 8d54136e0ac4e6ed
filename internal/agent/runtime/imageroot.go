package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// detach takes a mount off the tree at once, also while somebody has a file of it open.
const detach = unix.MNT_DETACH | unix.UMOUNT_NOFOLLOW

// withImage mounts an image's files for a moment, to be read only.
func (r *Runtime) withImage(ctx context.Context, config *imageConfig, id string, read func(root string) error) error {
	// The lease keeps the garbage collector away, and lets it clean up after a crash.
	ctx, done, err := r.withLease(ctx)
	if err != nil {
		return err
	}
	defer done()
	snapshotter := r.client.SnapshotService(r.options.Snapshotter)
	key := id + "-view"
	view, err := snapshotter.View(ctx, key, config.chainID)
	if errdefs.IsAlreadyExists(err) {
		view, err = snapshotter.Mounts(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("look into the image: %w", err)
	}
	err = r.withMounted(view, id, read)
	if removeErr := snapshotter.Remove(ctx, key); removeErr != nil {
		r.logger.Debug("a view of an image was left to the garbage collector", "error", removeErr)
	}
	return err
}

// withMounted mounts a view, which is read-only by itself, where unmountImages finds it if this process
// is killed in between. containerd's own temporary mounts would be under one path for the whole process.
func (r *Runtime) withMounted(view []mount.Mount, id string, read func(root string) error) (err error) {
	root := filepath.Join(r.imageRoots(), id)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("look into the image: %w", err)
	}
	defer func() {
		if unmountErr := unmountImage(root); err == nil {
			err = unmountErr
		}
	}()
	if err := mount.All(view, root); err != nil {
		return fmt.Errorf("look into the image: mount it at %s: %w", root, err)
	}
	return read(root)
}

// imageRoots is the folder of the images that are being looked into.
func (r *Runtime) imageRoots() string { return filepath.Join(r.options.StateDir, "images") }

// unmountImages ends what an agent that was killed left mounted.
func (r *Runtime) unmountImages() error {
	left, err := os.ReadDir(r.imageRoots())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range left {
		err = errors.Join(err, unmountImage(filepath.Join(r.imageRoots(), entry.Name())))
	}
	return err
}

// unmountImage unmounts all there is at root, and removes root and nothing below it: what is still
// mounted is the image's own.
func unmountImage(root string) error {
	if err := mount.UnmountAll(root, detach); err != nil {
		return fmt.Errorf("unmount image at %s: %w", root, err)
	}
	if err := os.Remove(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove image's mount point: %w", err)
	}
	return nil
}
