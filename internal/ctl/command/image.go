package command

import (
	"context"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/registry"
	"github.com/cuemby/warren/internal/ctl/view"
)

// imageFlags say when tags are resolved to what they stand for.
type imageFlags struct {
	ResolveImage   string `enum:"always,changed,never" default:"changed" env:"WARREN_RESOLVE_IMAGE" help:"Ask the registry once which image the tag stands for, so that all tasks run the same: changed (where an image is given), always (update: of the present tag too) or never (${default})." placeholder:"WHEN"`
	NoResolveImage bool   `help:"The same as --resolve-image never."`

	resolved map[string]string // by tag; empty where it could not be
}

// resolve returns the image with the digest that its tag stands for, or as it is where that cannot be known, having
// said so.
func (f *imageFlags) resolve(ctx context.Context, s *Session, image string, quiet bool) (with string, known bool) {
	if f.NoResolveImage || f.ResolveImage == "never" {
		return image, false
	}
	with, asked := f.resolved[image]
	if !asked { // an update that somebody else's comes before is made again
		var err error
		if with, err = registry.Resolve(ctx, image); err != nil && !quiet {
			s.Err.Printf("%s %s: %s: each node takes what the tag stands for when it pulls it", s.Err.Paint(output.Warning, "note:"), image, output.OneLine(err.Error()))
		}
		if f.resolved == nil {
			f.resolved = map[string]string{}
		}
		f.resolved[image] = with
	}
	if with == "" {
		return image, false
	}
	return with, true
}

// updated returns the image that an update is to set, of a service that has one already.
func (f *imageFlags) updated(ctx context.Context, s *Session, given *string, was string, quiet bool) string {
	if given == nil {
		if f.ResolveImage != "always" || f.NoResolveImage {
			return was
		}
		with, known := f.resolve(ctx, s, view.Image(was), quiet)
		if !known {
			return was
		}
		return with
	}
	with, known := f.resolve(ctx, s, *given, quiet)
	if !known && view.Image(was) == *given && f.ResolveImage != "never" && !f.NoResolveImage {
		return was // what the same tag stood for before
	}
	return with
}
