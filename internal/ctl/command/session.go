package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/contexts"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/progress"
	"github.com/cuemby/warren/internal/ctl/view"
)

// Session is what every command works with.
type Session struct {
	// Client is nil in commands that need no manager.
	*client.Client
	*output.Streams
	Connection Connection
	keeper     *contexts.Keeper // nil where no context is used
}

// stale warns that what is shown may be out of date.
func stale(s *output.Streams, since time.Time) string {
	said := "the cluster has no leader"
	if !since.IsZero() {
		said = "the cluster lost its leader " + view.Ago(timestamppb.New(since), s.Now())
	}
	return s.Err.Paint(output.Warning, "warning:") + " " + said + ": this is what one manager knows, and may be out of date"
}

// stallLimit ends looking on where no person can: long enough for a large image on a slow line, short
// enough for a pipeline to fail before its own limit.
const stallLimit = 10 * time.Minute

// LookOn are the flags of commands that wait until what they ordered has come about.
type LookOn struct {
	Detach  bool           `short:"d" group:"Progress" help:"Return at once, wait for nothing."`
	Quiet   bool           `short:"q" group:"Progress" help:"Wait, but show no progress."`
	Monitor time.Duration  `default:"1s" group:"Progress" help:"Time for which all must have been well (${default})." placeholder:"DURATION"`
	Timeout *time.Duration `group:"Progress" help:"Give up waiting after this long; 0 for never. Default: never on a terminal, elsewhere after 10m with nothing coming nearer." placeholder:"DURATION"`
}

// follow looks on until the targets are there.
func (l LookOn) follow(ctx context.Context, s *Session, targets []progress.Target) error {
	if l.Detach || len(targets) == 0 {
		return nil
	}
	streams := *s.Streams
	if l.Quiet {
		streams.Err = output.Stream{Writer: io.Discard}
	}
	limits := progress.Limits{Monitor: l.Monitor}
	switch {
	case l.Timeout != nil:
		limits.Timeout = *l.Timeout
	case !s.Err.Terminal:
		limits.Stall = stallLimit
	}
	return progress.Follow(ctx, s.Client, &streams, targets, limits)
}

// warn passes on what the manager wants the user to know.
func (s *Session) warn(warnings []string) {
	for _, w := range warnings {
		s.Err.Printf("%s %s", s.Err.Paint(output.Warning, "warning:"), output.OneLine(w))
	}
}

// forEach does something for every ref and returns the errors together, each with its ref's name,
// unless there is but one ref.
func forEach(refs []string, do func(ref string) error) error {
	var failed []error
	for _, ref := range refs {
		if err := do(ref); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// collect gets something for every ref, and the errors together.
func collect[T any](refs []string, get func(ref string) (T, error)) ([]T, error) {
	var all []T
	err := forEach(refs, func(ref string) error {
		one, err := get(ref)
		if err == nil {
			all = append(all, one)
		}
		return err
	})
	return all, err
}

// conflicts is how often an update that somebody else's came before is tried again.
const conflicts = 10

// retry does a read, a change and a write until nobody else has written between.
func retry(change func() error) error {
	for n := 1; ; n++ {
		err := change()
		if err == nil || connect.CodeOf(err) != connect.CodeAborted || n == conflicts {
			return err
		}
	}
}

// print writes a line of result.
func (s *Session) print(line string) error {
	_, err := fmt.Fprintln(s.Out, line)
	return err
}
