package progress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// news is what a watch tells of the target with that number.
type news struct {
	target  int
	message *warrenv1.WatchServiceResponse
	culprit *warrenv1.GetTaskResponse
	toMove  int
	broke   bool   // the connection, which is being made anew
	lost    string // what to say about it, once it takes long
	gone    bool
	err     error
}

// Follow shows the targets' progress on the stream until all have arrived (nil), one is stuck (its
// error, after all have been settled) or ctx ends (failure.ErrInterrupted, having said that the work
// goes on).
func Follow(ctx context.Context, c *client.Client, s *output.Streams, targets []Target, limits Limits) error {
	watching, stop := context.WithCancel(ctx)
	inbox := make(chan news)
	var watches errgroup.Group
	trackers := make([]*Tracker, len(targets))
	for i, t := range targets {
		trackers[i] = NewTracker(t, limits, s.Now())
		watches.Go(func() error {
			w := watch{client: c, target: t, number: i, inbox: inbox}
			w.run(watching)
			return nil
		})
	}
	err := look(ctx, s, trackers, inbox)
	stop()
	_ = watches.Wait() // the watches report through their inbox
	return err
}

// look draws and decides until there is nothing left to wait for.
func look(ctx context.Context, s *output.Streams, trackers []*Tracker, inbox <-chan news) error {
	pic := newPicture(s.Err)
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		now := s.Now()
		wake := pic.draw(trackers, now)
		working := false
		var stuck []error
		for _, t := range trackers {
			switch verdict, why := t.Verdict(now); verdict {
			case Working:
				working = true
				if next := t.Next(); !next.IsZero() && (wake.IsZero() || next.Before(wake)) {
					wake = next
				}
			case Stuck:
				stuck = append(stuck, t.stuck(why))
			}
		}
		if !working {
			for _, t := range trackers {
				if t.hint != "" {
					s.Err.Printf("%s", t.hint)
				}
			}
			return errors.Join(stuck...)
		}
		alarm.Stop()
		if !wake.IsZero() {
			alarm.Reset(max(0, wake.Sub(now)))
		}

		select {
		case <-ctx.Done():
			if s.Err.Terminal {
				s.Err.Printf("") // the terminal has written ^C
			}
			s.Err.Printf("%s", goesOn(trackers))
			return failure.ErrInterrupted
		case <-alarm.C:
		case n := <-inbox:
			t := trackers[n.target]
			switch {
			case n.err != nil:
				return fmt.Errorf("%s: %w", t.target.Name, n.err)
			case n.gone:
				t.Gone(s.Now())
			case n.broke:
				t.Lose(n.lost)
			default:
				t.Move(n.toMove)
				t.Observe(n.message, n.culprit, s.Now())
			}
		}
	}
}

// stuck is the error of a service that did not arrive.
func (t *Tracker) stuck(why string) error {
	if t.rests {
		return fmt.Errorf("%s: %s", t.target.Name, why)
	}
	said := fmt.Sprintf("%s: %s: %s", t.target.Name, why, t.Counts())
	if reason := cmp.Or(t.Reason(), t.Doing(), t.Stages()); reason != "" {
		said += ": " + reason
	}
	if t.removed {
		return errors.New(said)
	}
	return fmt.Errorf("%s; Warren goes on trying: look on with `warrenctl service ps %s`", said, t.target.Name)
}

// goesOn says what an interrupted user must know.
func goesOn(trackers []*Tracker) string {
	var names []string
	for _, t := range trackers {
		if t.verdict == Working {
			names = append(names, t.target.Name)
		}
	}
	all := strings.Join(names, " ")
	verb := "goes"
	if len(names) > 1 {
		verb = "go"
	}
	return fmt.Sprintf("Stopped looking; the work on %s %s on. Look on with `warrenctl service ps %s`.", strings.Join(names, ", "), verb, all)
}

// watch reads the stream of one service into the inbox.
type watch struct {
	client *client.Client
	target Target
	number int
	inbox  chan<- news

	lost    string // what was said of a break that lasts
	asked   cause
	culprit *warrenv1.GetTaskResponse
}

// cause identifies a reason, so that its task is asked for once.
type cause struct {
	task string
	at   int64
}

// run reads until ctx ends, the service is gone, or the managers have been out of reach for too long.
func (w *watch) run(ctx context.Context) {
	var resumption client.Resumption
	for ctx.Err() == nil {
		resumption.Open()
		err := w.read(ctx, &resumption)
		if err == nil || connect.CodeOf(err) == connect.CodeNotFound {
			w.tell(ctx, news{gone: true})
			return
		}
		w.tell(ctx, news{broke: true, lost: w.lost})
		err = resumption.Broke(ctx, err, func() {
			w.lost = "no manager can be reached; trying again"
			w.tell(ctx, news{broke: true, lost: w.lost})
		})
		if err != nil {
			w.tell(ctx, news{err: err})
			return
		}
	}
}

// read opens the stream and passes on what comes. It returns nil if the service is gone.
func (w *watch) read(ctx context.Context, resumption *client.Resumption) error {
	stream, err := w.client.Services.WatchService(ctx, connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: w.target.ID}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		resumption.Heard()
		w.lost = ""
		m := stream.Msg()
		if m.GetRemoved() {
			return nil
		}
		left, err := w.toMove(ctx)
		if err != nil {
			return err
		}
		w.tell(ctx, news{message: m, culprit: w.ask(ctx, m.GetProgress()), toMove: left})
	}
	if err := stream.Err(); err != nil {
		return err
	}
	// A manager that shuts down may end its streams properly, without the last message.
	return connect.NewError(connect.CodeUnavailable, errors.New("the manager ended the stream"))
}

// ask gets the task that the reason is about, for the name of its node and its last output. Without
// it the reason is shown as it is.
func (w *watch) ask(ctx context.Context, p *warrenv1.ServiceProgress) *warrenv1.GetTaskResponse {
	c := cause{p.GetReasonTaskId(), p.GetReasonAt().AsTime().UnixNano()}
	if c.task == "" {
		return nil
	}
	if c == w.asked {
		return w.culprit
	}
	res, err := w.client.Tasks.GetTask(ctx, connect.NewRequest(&warrenv1.GetTaskRequest{Ref: c.task}))
	if err != nil {
		return nil
	}
	w.asked, w.culprit = c, res.Msg
	return w.culprit
}

// toMove counts the tasks that are still to be moved, where some were ordered to be.
func (w *watch) toMove(ctx context.Context) (int, error) {
	if !w.target.Moving {
		return 0, nil
	}
	tasks, err := w.client.ListTasks(ctx, w.target.ID, "", true)
	left := 0
	for _, e := range tasks {
		if e.GetTask().GetDisplaced() {
			left++
		}
	}
	return left, err
}

func (w *watch) tell(ctx context.Context, n news) {
	n.target = w.number
	select {
	case w.inbox <- n:
	case <-ctx.Done():
	}
}
