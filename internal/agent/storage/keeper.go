package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/agent/runtime"
	"github.com/cuemby/warren/internal/agent/supervisor"
	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// tidyEvery is how often it is looked what nobody needs; oftener with a retention of less than four times that.
	tidyEvery = time.Minute
	// tidyAtMost bounds a look, which waits for containerd where that is away.
	tidyAtMost = 10 * time.Minute
)

// Engine is where images and containers are.
type Engine interface {
	Images(ctx context.Context) ([]runtime.StoredImage, error)
	Measure(ctx context.Context, list []runtime.StoredImage) error
	NoteUnused(ctx context.Context, image runtime.StoredImage, since time.Time) error
	RemoveImages(ctx context.Context, list []runtime.StoredImage, decided time.Time) ([]runtime.StoredImage, error)
	ContainersImages(ctx context.Context) (map[string]bool, error)
	Written(ctx context.Context) (containers int, bytes int64, err error)
	Disk(ctx context.Context) (total, free uint64, err error)
}

// Options say what is kept, and where.
type Options struct {
	Engine Engine
	// Tasks tells how the node's tasks stand.
	Tasks func() []supervisor.Look
	// Retention is how long an image stays that no task uses; 0 for ever.
	Retention time.Duration
	// DataDir is the agent's folder, OutputDir that of the tasks' output, which may be within it.
	DataDir, OutputDir string
	Logger             *slog.Logger
}

// Keeper looks after the node's disk. Its methods may be called at the same time.
type Keeper struct {
	Options
	removing sync.Mutex // held from the decision to its end
}

// New returns a keeper, which does nothing before it is told to.
func New(o Options) *Keeper { return &Keeper{Options: o} }

// Run tidies now and then until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	if k.Retention <= 0 {
		return
	}
	ticker := time.NewTicker(max(min(tidyEvery, k.Retention/4), time.Second))
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := k.tidy(ctx, time.Now())
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			k.Logger.Warn("images that no task uses could not be removed; trying again", "error", err)
		}
	}
}

// tidy removes what the retention and the disk say.
func (k *Keeper) tidy(ctx context.Context, now time.Time) error {
	k.removing.Lock()
	defer k.removing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tidyAtMost)
	defer cancel()
	var d disk
	var err error
	if d.total, d.free, err = k.Engine.Disk(ctx); err != nil {
		return err
	}
	// Only a crowded disk makes the sizes of images worth asking for.
	images, err := k.images(ctx, d.fuller(crowded))
	if err != nil {
		return err
	}
	what := decide(images, d, k.Retention, now)
	var failed error
	for _, i := range what.end {
		failed = errors.Join(failed, k.Engine.NoteUnused(ctx, i, time.Time{}))
	}
	for _, i := range what.begin {
		failed = errors.Join(failed, k.Engine.NoteUnused(ctx, i, now))
	}
	_, err = k.remove(ctx, what.remove, now)
	return errors.Join(failed, err)
}

func (k *Keeper) remove(ctx context.Context, list []runtime.StoredImage, decided time.Time) ([]runtime.StoredImage, error) {
	if len(list) == 0 {
		return nil, nil
	}
	removed, err := k.Engine.RemoveImages(ctx, list, decided)
	for _, i := range removed {
		k.Logger.Info("removed an image that no task uses", "image", strings.Join(i.Names, " "), "digest", i.Digest)
	}
	return removed, err
}

// images are all images beside what is known of their use. It looks at the tasks after the images: a task that comes
// between wants an image that is listed.
func (k *Keeper) images(ctx context.Context, measured bool) ([]image, error) {
	list, err := k.Engine.Images(ctx)
	if err != nil {
		return nil, err
	}
	if measured {
		if err := k.Engine.Measure(ctx, list); err != nil {
			return nil, err
		}
	}
	used, err := k.Engine.ContainersImages(ctx)
	if err != nil {
		return nil, err
	}
	kept := map[string]bool{}
	for _, t := range k.Tasks() {
		in := used
		if lifecycle.Ended(t.Status.GetState()) {
			in = kept
		}
		in[runtime.FullName(t.Image)] = true
		if t.ImageDigest != "" {
			in[t.ImageDigest] = true
		}
	}
	images := make([]image, 0, len(list))
	for _, i := range list {
		images = append(images, image{StoredImage: i, used: among(used, i), kept: among(kept, i)})
	}
	return images, nil
}

// among tells whether an image is there by its digest or by one of its names.
func among(wanted map[string]bool, i runtime.StoredImage) bool {
	if wanted[i.Digest] {
		return true
	}
	for _, name := range i.Names {
		if wanted[name] {
			return true
		}
	}
	return false
}

// Prune removes all images that no task needs, or tells which these are.
func (k *Keeper) Prune(ctx context.Context, dryRun bool) (*warrenv1.PrunedImages, error) {
	k.removing.Lock()
	defer k.removing.Unlock()
	now := time.Now()
	images, err := k.images(ctx, true)
	if err != nil {
		return nil, err
	}
	gone := unneeded(images)
	if !dryRun {
		gone, err = k.remove(ctx, gone, now)
	}
	left, pruned := newPieces(images), &warrenv1.PrunedImages{}
	for _, i := range gone {
		pruned.FreedBytes += left.drop(i.Pieces)
		pruned.Images = append(pruned.Images, stored(image{StoredImage: i}))
	}
	return pruned, err
}

// Disk tells what takes up the node's disk.
func (k *Keeper) Disk(ctx context.Context) (*warrenv1.NodeDisk, error) {
	told := &warrenv1.NodeDisk{}
	var err error
	if told.TotalBytes, told.FreeBytes, err = k.Engine.Disk(ctx); err != nil {
		return nil, err
	}
	images, err := k.images(ctx, true)
	if err != nil {
		return nil, err
	}
	all, left := map[string]int64{}, newPieces(images)
	for _, i := range images {
		maps.Copy(all, i.Pieces)
		if !i.used {
			told.ReclaimableImageBytes += left.drop(i.Pieces)
		}
		told.Images = append(told.Images, stored(i))
	}
	for _, size := range all {
		told.ImageBytes += uint64(size)
	}
	containers, written, err := k.Engine.Written(ctx)
	if err != nil {
		return nil, err
	}
	told.Containers, told.ContainerBytes = uint32(containers), uint64(written)
	if told.OutputBytes, told.Outputs, err = folder(ctx, k.OutputDir, ""); err != nil {
		return nil, fmt.Errorf("measure the tasks' output: %w", err)
	}
	if told.DataBytes, _, err = folder(ctx, k.DataDir, k.OutputDir); err != nil {
		return nil, fmt.Errorf("measure the agent's data: %w", err)
	}
	return told, nil
}

func stored(i image) *warrenv1.StoredImage {
	told := &warrenv1.StoredImage{Names: i.Names, Digest: i.Digest, Bytes: uint64(i.Bytes()), Used: i.used, Pulled: i.Pulled}
	if !i.used && !i.UnusedSince.IsZero() {
		told.UnusedSince = timestamppb.New(i.UnusedSince)
	}
	return told
}
