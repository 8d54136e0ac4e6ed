package progress

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// shownPending is how many members that have not renewed are named.
const shownPending = 5

// FollowRotation shows how the replacement of the CA that has begun goes on until it has ended (nil), takes
// longer than the limits allow, or ctx ends (failure.ErrInterrupted, having said that it goes on).
func FollowRotation(ctx context.Context, c *client.Client, s *output.Streams, begun *warrenv1.Trust, limits Limits) error {
	watching, stop := context.WithCancel(ctx)
	inbox := make(chan trustNews)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watchTrust(watching, c, inbox)
	}()
	err := lookAtRotation(ctx, s, newRotation(begun, limits, s.Now()), inbox)
	stop()
	<-ended
	return err
}

// lookAtRotation draws and decides until there is nothing left to wait for.
func lookAtRotation(ctx context.Context, s *output.Streams, r *rotation, inbox <-chan trustNews) error {
	var pic rotationPicture = &rotationJournal{stream: s.Err}
	if s.Err.Terminal {
		pic = &rotationBar{screen: screen{stream: s.Err}}
	}
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		now := s.Now()
		again := pic.draw(r, now)
		if r.ended() {
			return nil
		}
		if why := r.stuck(now); why != "" {
			return fmt.Errorf("the CA is not replaced %s: %s; Warren goes on: look on with `warrenctl cluster ca ls`", why, strings.Join(append([]string{r.counts()}, r.waiting()...), "; "))
		}
		if next := r.next(); again.IsZero() || !next.IsZero() && next.Before(again) {
			again = next
		}
		alarm.Stop()
		if !again.IsZero() {
			alarm.Reset(max(0, again.Sub(now)))
		}
		select {
		case <-ctx.Done():
			if s.Err.Terminal {
				s.Err.Printf("") // the terminal has written ^C
			}
			s.Err.Printf("Stopped looking; the replacement of the CA goes on. See how far it is with `warrenctl cluster ca ls`.")
			return failure.ErrInterrupted
		case <-alarm.C:
		case n := <-inbox:
			if n.err != nil {
				return n.err
			}
			r.observe(n.trust, s.Now())
		}
	}
}

// rotation is what is known of a replacement. It reads no clock.
type rotation struct {
	limits   Limits
	began    time.Time
	improved time.Time
	ordered  string // digest of the new CA
	latest   *warrenv1.Trust
	nearest  int // the fewest who had not renewed
	lost     bool
}

func newRotation(begun *warrenv1.Trust, limits Limits, now time.Time) *rotation {
	return &rotation{
		limits: limits, began: now, improved: now, latest: begun,
		ordered: begun.GetAuthorities()[0].GetDigest(), nearest: len(begun.GetPending()),
	}
}

// observe takes in how the CAs stand; nil stands for that the manager is out of reach.
func (r *rotation) observe(t *warrenv1.Trust, now time.Time) {
	r.lost = t == nil
	if t == nil || len(t.GetAuthorities()) == 0 {
		return
	}
	r.latest = t
	if left := len(t.GetPending()); left < r.nearest {
		r.nearest, r.improved = left, now
	}
}

// ended tells whether the old CA is forgotten. One that was replaced in its turn was the only one before.
func (r *rotation) ended() bool {
	all := r.latest.GetAuthorities()
	return len(all) == 1 || all[0].GetDigest() != r.ordered
}

// stuck says why there is no use in looking on, empty where there is.
func (r *rotation) stuck(now time.Time) string {
	switch {
	case r.limits.Timeout > 0 && !now.Before(r.began.Add(r.limits.Timeout)):
		return "within " + r.limits.Timeout.String()
	case r.limits.Stall > 0 && !now.Before(r.improved.Add(r.limits.Stall)):
		return "and no nearer for " + r.limits.Stall.String()
	}
	return ""
}

// next is when stuck can change although nothing is observed; zero if it cannot.
func (r *rotation) next() time.Time {
	timeout, stall := after(r.began, r.limits.Timeout, r.limits.Timeout > 0), after(r.improved, r.limits.Stall, r.limits.Stall > 0)
	if timeout.IsZero() || !stall.IsZero() && stall.Before(timeout) {
		return stall
	}
	return timeout
}

// counts says in a few words how far it is.
func (r *rotation) counts() string { return RenewedOf(r.latest) }

// waiting says who is waited for, and what there is to do about it.
func (r *rotation) waiting() []string {
	if r.lost {
		return []string{"the connection to the manager broke; trying again"}
	}
	return WaitingFor(r.latest)
}

// RenewedOf says in a few words how far a replacement of the CA is.
func RenewedOf(t *warrenv1.Trust) string {
	return fmt.Sprintf("%d/%d renewed", t.GetRenewed(), int(t.GetRenewed())+len(t.GetPending()))
}

// WaitingFor says who holds a replacement of the CA up, and what there is to do about it.
func WaitingFor(t *warrenv1.Trust) []string {
	var up, down []string
	for _, p := range t.GetPending() {
		kind, remove := "agent", "node"
		if p.GetRole() == warrenv1.Role_ROLE_MANAGER {
			kind, remove = "manager", "manager"
		}
		name := output.OneLine(p.GetHostname())
		if name == "" {
			name = view.ShortID(output.OneLine(p.GetId()))
		}
		if p.GetDown() {
			down = append(down, fmt.Sprintf("%s %s is down: bring it back, or remove it with `warrenctl %s rm %s`", kind, name, remove, name))
		} else {
			up = append(up, kind+" "+name)
		}
	}
	var said []string
	if len(up) > 0 {
		said = append(said, "waiting for "+strings.Join(first(up, shownPending, "and %d more"), ", "))
	}
	return append(said, first(down, shownPending, "and %d more are down")...)
}

// first returns the first few of many, and how many there are beside them.
func first(all []string, few int, more string) []string {
	if len(all) <= few {
		return all
	}
	return append(all[:few:few], fmt.Sprintf(more, len(all)-few))
}

// rotationPicture shows a replacement, and returns when it wants to be drawn again; zero for never.
type rotationPicture interface {
	draw(r *rotation, now time.Time) time.Time
}

// rotationBar redraws a bar in place.
type rotationBar struct{ screen }

func (b *rotationBar) draw(r *rotation, _ time.Time) time.Time {
	full, colour, status := 0, output.Warning, r.counts()
	if all := int(r.latest.GetRenewed()) + len(r.latest.GetPending()); all > 0 {
		full = int(r.latest.GetRenewed()) * barWidth / all
	}
	var lines []string
	if r.ended() {
		full, colour, status = barWidth, output.Good, "done"
	} else {
		for _, said := range r.waiting() {
			lines = append(lines, "    "+b.stream.Paint(output.Faint, said))
		}
	}
	b.show(append([]string{fmt.Sprintf("CA  %s%s  %s", b.stream.Paint(colour, strings.Repeat("━", full)),
		b.stream.Paint(output.Faint, strings.Repeat("─", barWidth-full)), status)}, lines...))
	return time.Time{}
}

// rotationJournal prints a line where something has changed, further and further apart where that is a number.
type rotationJournal struct {
	stream  output.Stream
	printed bool
	line    string
	down    string // who was down and what else must be known at once
	at      time.Time
	gap     time.Duration
}

func (j *rotationJournal) draw(r *rotation, now time.Time) time.Time {
	if r.ended() {
		j.stream.Printf("CA: replaced, done")
		return time.Time{}
	}
	waiting := r.waiting()
	line := strings.Join(append([]string{r.counts()}, waiting...), "; ")
	down := strings.Join(slices.DeleteFunc(waiting, func(w string) bool { return strings.HasPrefix(w, "waiting for") }), "; ")
	if line == j.line {
		return time.Time{}
	}
	switch due := j.at.Add(j.gap); {
	case !j.printed || down != j.down && down != "":
		j.gap = countGap
	case now.Before(due):
		return due
	default:
		j.gap = min(2*j.gap, countGapMax)
	}
	j.stream.Printf("CA: %s", line)
	j.printed, j.line, j.down, j.at = true, line, down, now
	return time.Time{}
}

// trustNews is what a watch of the CAs tells. Nothing at all tells that the manager is out of reach.
type trustNews struct {
	trust *warrenv1.Trust
	err   error
}

// watchTrust reads how the CAs stand into the inbox until ctx ends or the manager has been out of reach for too
// long.
func watchTrust(ctx context.Context, c *client.Client, inbox chan<- trustNews) {
	tell := func(n trustNews) {
		select {
		case inbox <- n:
		case <-ctx.Done():
		}
	}
	var resumption client.Resumption
	for ctx.Err() == nil {
		resumption.Open()
		err := readTrust(ctx, c, func(t *warrenv1.Trust) {
			resumption.Heard()
			tell(trustNews{trust: t})
		})
		if err = resumption.Broke(ctx, err, func() { tell(trustNews{}) }); err != nil {
			tell(trustNews{err: err})
			return
		}
	}
}

// readTrust opens the stream and passes on what comes. It never returns nil.
func readTrust(ctx context.Context, c *client.Client, pass func(*warrenv1.Trust)) error {
	stream, err := c.Trust.WatchTrust(ctx, connect.NewRequest(&warrenv1.WatchTrustRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		pass(stream.Msg().GetTrust())
	}
	if err := stream.Err(); err != nil {
		return err
	}
	// A manager that shuts down may end its streams properly.
	return connect.NewError(connect.CodeUnavailable, errors.New("the manager ended the stream"))
}
