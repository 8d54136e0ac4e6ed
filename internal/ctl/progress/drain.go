package progress

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Draining is a node that was ordered to be drained.
type Draining struct {
	ID, Hostname string
	// Version is that of the write that ordered it: what is older says nothing of the drain.
	Version uint64
}

const (
	// shownLeft is how many tasks that are left are shown, with what they wait for.
	shownLeft = 5
	// together is how long news are gathered before what they are about is asked for: a drain makes many at once.
	together = 200 * time.Millisecond
	// askAgain is when what could not be had, or was behind the news, is asked for again.
	askAgain = 500 * time.Millisecond
	// unreachable is how long the managers may be out of reach.
	unreachable = time.Minute
)

// FollowDrain shows how nodes are drained until no task is left (nil), a node is not drained any more, it takes
// longer than the limits allow, or ctx ends (failure.ErrInterrupted, having said that it goes on and how it is
// undone).
func FollowDrain(ctx context.Context, c *client.Client, s *output.Streams, nodes []Draining, limits Limits) error {
	watching, stop := context.WithCancel(ctx)
	w := newDrainWatch(watching, c, nodes)
	f := drainFollower{client: c, streams: s, limits: limits, watch: w}
	for _, n := range nodes {
		f.drains = append(f.drains, &drain{node: n, began: s.Now(), improved: s.Now(), most: -1})
	}
	err := f.run(ctx)
	stop()
	w.wait()
	return err
}

// drainFollower looks at nodes whenever there are news of them.
type drainFollower struct {
	client  *client.Client
	streams *output.Streams
	limits  Limits
	watch   *drainWatch
	drains  []*drain
	lost    time.Time // since when managers have not answered
}

func (f *drainFollower) run(ctx context.Context) error {
	var pic drainPicture = &drainJournal{stream: f.streams.Err, last: map[*drain]drainLine{}}
	if f.streams.Err.Terminal {
		pic = &drainBars{screen{stream: f.streams.Err}}
	}
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for due := f.streams.Now(); ; { // when to look again; zero for when there are news
		now := f.streams.Now()
		if !due.IsZero() && !now.Before(due) {
			again, err := f.look(ctx)
			if err != nil {
				return err
			}
			now, due = f.streams.Now(), time.Time{}
			if again {
				due = now.Add(askAgain)
			}
		}
		wake := soonest(pic.draw(f.drains, now), due)
		working, stuck := settled(f.drains, f.limits, now)
		if !working {
			return errors.Join(stuck...)
		}
		for _, d := range f.drains {
			wake = soonest(wake, d.next(f.limits))
		}
		bell := f.watch.bell
		if !due.IsZero() { // it is looked at then, whatever comes meanwhile
			bell = nil
		}
		alarm.Stop()
		if !wake.IsZero() {
			alarm.Reset(max(0, wake.Sub(now)))
		}
		select {
		case <-ctx.Done():
			if f.streams.Err.Terminal {
				f.streams.Err.Printf("") // the terminal has written ^C
			}
			f.streams.Err.Printf("%s", drainGoesOn(f.drains))
			return failure.ErrInterrupted
		case <-alarm.C:
		case <-bell:
			due = f.streams.Now().Add(together)
		case n := <-f.watch.news:
			if n.err != nil {
				return n.err
			}
			for _, d := range f.drains {
				d.lost = n.lost
			}
		}
	}
}

// soonest returns the sooner of two times, of which the zero one is never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// look asks how the nodes stand, and tells whether to ask again although nothing happens: a manager has not
// answered, or is behind the news.
func (f *drainFollower) look(ctx context.Context) (again bool, err error) {
	f.watch.begin()
	err = lookAtDrains(ctx, f.client, f.drains, f.streams.Now())
	behind := f.watch.settle(f.drains)
	switch {
	case err == nil:
		f.lost = time.Time{}
		for _, d := range f.drains {
			d.lost = ""
		}
		return behind, nil
	case ctx.Err() != nil:
		return false, nil //nolint:nilerr // who has ended it is told so elsewhere
	case !client.Transient(err):
		return false, err
	case f.lost.IsZero():
		f.lost = f.streams.Now()
	case f.streams.Now().Sub(f.lost) > unreachable:
		return false, err
	}
	return true, nil
}

// settled tells whether any node is still worth looking at, and what went wrong with the others.
func settled(drains []*drain, limits Limits, now time.Time) (working bool, stuck []error) {
	for _, d := range drains {
		switch why := d.stuck(limits, now); {
		case d.done():
		case why != "":
			stuck = append(stuck, errors.New(why))
		default:
			working = true
		}
	}
	return working, stuck
}

func drainGoesOn(drains []*drain) string {
	var names []string
	for _, d := range drains {
		if !d.done() {
			names = append(names, d.node.Hostname)
		}
	}
	verb := "is"
	if len(names) > 1 {
		verb = "are"
	}
	return fmt.Sprintf("Stopped looking; %s %s being drained on. Look on with `warrenctl node drain %s`; undo it with `warrenctl node activate %s`.",
		strings.Join(names, ", "), verb, strings.Join(names, " "), strings.Join(names, " "))
}

// lookAtDrains asks how the nodes stand.
func lookAtDrains(ctx context.Context, c *client.Client, drains []*drain, now time.Time) error {
	services := map[string][]*warrenv1.TaskEntry{} // of those whose tasks are shown
	for _, d := range drains {
		if d.done() {
			continue
		}
		res, err := c.Nodes.GetNode(ctx, connect.NewRequest(&warrenv1.GetNodeRequest{Ref: d.node.ID}))
		if connect.CodeOf(err) == connect.CodeNotFound {
			d.gone = true
			continue
		}
		if err != nil {
			return err
		}
		tasks, err := c.ListTasks(ctx, "", d.node.ID, false)
		if err != nil {
			return err
		}
		d.observe(res.Msg.GetEntry().GetNode(), tasks, now)
		for _, t := range d.left[:min(len(d.left), shownLeft)] {
			id := t.GetTask().GetServiceId()
			if _, asked := services[id]; asked {
				continue
			}
			// Only to be shown along: without it there is still how many are left.
			if of, err := c.ListTasks(ctx, id, "", true); err == nil {
				services[id] = of
			}
		}
		d.others = services
	}
	return nil
}

// drain is what is known of a node that is drained. It reads no clock.
type drain struct {
	node     Draining
	began    time.Time
	improved time.Time
	known    bool
	behind   bool   // what was read last is older than the order
	gone     bool   // the node was removed
	lost     string // what to say of a break that lasts
	latest   *warrenv1.Node
	left     []*warrenv1.TaskEntry            // that have not ended
	others   map[string][]*warrenv1.TaskEntry // by service: the tasks that are wanted
	most     int                              // that were there at the beginning
}

func (d *drain) observe(n *warrenv1.Node, tasks []*warrenv1.TaskEntry, now time.Time) {
	if d.behind = n.GetMeta().GetVersion() < d.node.Version; d.behind {
		return
	}
	d.known, d.latest = true, n
	before := len(d.left)
	d.left = nil
	for _, t := range tasks {
		if !view.Ended(t.GetTask().GetStatus().GetState()) {
			d.left = append(d.left, t)
		}
	}
	if d.most < 0 || len(d.left) < before {
		d.improved = now
	}
	d.most = max(d.most, len(d.left))
}

// done tells that no task is left.
func (d *drain) done() bool { return d.gone || d.known && d.drained() && len(d.left) == 0 }

func (d *drain) drained() bool {
	return d.latest.GetSpec().GetAvailability() == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
}

// stuck says why there is no use in looking on, empty where there is.
func (d *drain) stuck(limits Limits, now time.Time) string {
	var late string
	switch {
	case d.known && !d.drained():
		return fmt.Sprintf("%s is not being drained any more: somebody has set it to %s", d.node.Hostname, view.Availability(d.latest.GetSpec().GetAvailability()))
	case limits.Timeout > 0 && !now.Before(d.began.Add(limits.Timeout)):
		late = "not empty within " + limits.Timeout.String()
	case limits.Stall > 0 && !now.Before(d.improved.Add(limits.Stall)):
		late = "no task has gone for " + limits.Stall.String()
	default:
		return ""
	}
	said := strings.Join(append([]string{d.counts()}, d.waiting()...), "; ")
	return fmt.Sprintf("%s: %s: %s; it goes on: look on with `warrenctl node drain %s`, undo it with `warrenctl node activate %s`", d.node.Hostname, late, said, d.node.Hostname, d.node.Hostname)
}

// next is when stuck can change although nothing is observed; zero if it cannot.
func (d *drain) next(limits Limits) time.Time {
	if d.done() {
		return time.Time{}
	}
	return soonest(after(d.began, limits.Timeout, limits.Timeout > 0), after(d.improved, limits.Stall, limits.Stall > 0))
}

// counts says how many tasks are left.
func (d *drain) counts() string {
	switch {
	case d.gone:
		return "removed"
	case !d.known:
		return "waiting for the manager"
	case d.most == 0:
		return "no tasks"
	}
	said := fmt.Sprintf("%d of %d tasks left", len(d.left), d.most)
	if state := d.latest.GetStatus().GetState(); len(d.left) > 0 && state > warrenv1.NodeState_NODE_STATE_READY {
		said += ", and the node is " + view.NodeState(state)
	}
	return said
}

// deadline says when what is left is stopped; empty without a deadline.
func (d *drain) deadline(now time.Time) string {
	at := d.latest.GetSpec().GetDrainDeadline()
	if at == nil {
		return ""
	}
	return "what is left at " + at.AsTime().In(now.Location()).Format("15:04:05") + " is stopped"
}

// waiting says of the first tasks that are left what each waits for.
func (d *drain) waiting() []string {
	var said []string
	if d.lost != "" {
		said = append(said, d.lost)
	}
	for _, t := range d.left[:min(len(d.left), shownLeft)] {
		said = append(said, view.TaskName(t.GetTask(), t.GetNodeHostname())+": "+d.waitsFor(t.GetTask()))
	}
	if more := len(d.left) - shownLeft; more > 0 {
		said = append(said, fmt.Sprintf("and %d more", more))
	}
	return said
}

// waitsFor says what a task that is left waits for.
func (d *drain) waitsFor(t *warrenv1.Task) string {
	if t.GetStatus().GetState() == warrenv1.TaskState_TASK_STATE_STOPPING || t.GetDesired() != warrenv1.DesiredState_DESIRED_STATE_RUNNING {
		return "is being stopped"
	}
	for _, e := range d.others[t.GetServiceId()] {
		other := e.GetTask()
		if other.GetSlot() != t.GetSlot() || t.GetSlot() == 0 || other.GetMeta().GetId() == t.GetMeta().GetId() || view.Ended(other.GetStatus().GetState()) {
			continue
		}
		status := other.GetStatus()
		where := ""
		if e.GetNodeHostname() != "" {
			where = " on " + e.GetNodeHostname()
		}
		what := "its replacement" + where + " is " + view.State(status.GetState())
		if status.GetState() == warrenv1.TaskState_TASK_STATE_RUNNING {
			what = "its replacement" + where + " must serve"
		}
		if why := output.OneLine(view.Waits(status)); why != "" {
			what += ": " + why
		}
		return what
	}
	return "waits for its turn"
}

// drainPicture shows drains, and returns when it wants to be drawn again although nothing happens; zero for never.
type drainPicture interface {
	draw(drains []*drain, now time.Time) time.Time
}

// drainBars redraws a bar for each node in place.
type drainBars struct{ screen }

func (b *drainBars) draw(drains []*drain, now time.Time) time.Time {
	width := 0
	for _, d := range drains {
		width = max(width, len(d.node.Hostname))
	}
	var lines []string
	for _, d := range drains {
		full, colour, status := 0, output.Warning, d.counts()
		if d.most > 0 {
			full = (d.most - len(d.left)) * barWidth / d.most
		}
		if d.done() {
			full, colour, status = barWidth, output.Good, status+", drained"
		} else if at := d.deadline(now); at != "" {
			status += ", " + at
		}
		lines = append(lines, fmt.Sprintf("%-*s  %s%s  %s", width, d.node.Hostname,
			b.stream.Paint(colour, strings.Repeat("━", full)), b.stream.Paint(output.Faint, strings.Repeat("─", barWidth-full)), status))
		for _, said := range d.waiting() {
			lines = append(lines, strings.Repeat(" ", width+2)+b.stream.Paint(output.Faint, said))
		}
	}
	b.show(lines)
	return time.Time{}
}

// drainJournal prints a line where the number of tasks has changed, or what they wait for, further and further
// apart.
type drainJournal struct {
	stream output.Stream
	last   map[*drain]drainLine
}

// drainLine is what was printed last of a node.
type drainLine struct {
	said string
	done bool
	at   time.Time
	gap  time.Duration
}

func (j *drainJournal) draw(drains []*drain, now time.Time) (again time.Time) {
	for _, d := range drains {
		last, printed := j.last[d]
		if last.done || !d.known && !d.gone {
			continue
		}
		if d.done() {
			j.stream.Printf("%s: %s, drained", d.node.Hostname, d.counts())
			j.last[d] = drainLine{done: true}
			continue
		}
		said := strings.Join(append([]string{d.counts()}, d.waiting()...), "; ")
		if said == last.said {
			continue
		}
		if due := last.at.Add(last.gap); printed && now.Before(due) {
			again = soonest(again, due)
			continue
		}
		gap := min(max(countGap, 2*last.gap), countGapMax)
		if at := d.deadline(now); at != "" && !printed {
			said += "; " + at
		}
		j.stream.Printf("%s: %s", d.node.Hostname, said)
		j.last[d] = drainLine{said: strings.TrimSuffix(said, "; "+d.deadline(now)), at: now, gap: gap}
	}
	return again
}
