package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Whatever happens in whatever order, (attempt, state) never decreases, what has ended never runs
// again, no two containers of a task run at once, and in the end there is what should be.
func TestNoOrderOfEventsBreaksTheLaws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(r *rapid.T) {
			n := makeNode(t)
			defer func() { n.stop() }()
			n.t = r
			w := &world{node: n, wanted: map[string]*warrenv1.Assignment{}}
			n.runtime.stepTime = rapid.SampledFrom([]time.Duration{0, time.Millisecond}).Draw(r, "step time")
			r.Repeat(map[string]func(*rapid.T){
				"assign": w.assign, "shutdown": w.shutdown, "remove": w.remove, "lose": w.lose,
				"exit": w.exit, "trouble": w.trouble, "pass": w.pass, "resync": w.resync,
				"kill": w.kill, "reboot": w.reboot, "full": w.full,
				"": w.check,
			})
			w.calmDown()
			w.check(r)
		})
	})
}

type world struct {
	*node
	next   int
	wanted map[string]*warrenv1.Assignment // as the manager would send it now
}

func (w *world) pick(r *rapid.T) *warrenv1.Assignment {
	if len(w.wanted) == 0 {
		r.Skip("no tasks")
	}
	ids := w.ids()
	return w.wanted[rapid.SampledFrom(ids).Draw(r, "task")]
}

func (w *world) ids() []string {
	var ids []string
	for id := range w.wanted {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) assign(r *rapid.T) {
	w.next++
	a := assignment(fmt.Sprintf("t%d", w.next), policy(&warrenv1.RestartPolicy{
		Condition: warrenv1.RestartCondition(rapid.IntRange(0, 3).Draw(r, "condition")),
	}))
	if rapid.Bool().Draw(r, "bounded") {
		a.Spec.Restart.MaxAttempts = new(uint32(rapid.IntRange(0, 2).Draw(r, "attempts")))
	}
	a.Spec.Container.StopGracePeriod = durationpb.New(time.Second)
	w.wanted[a.Task.Meta.Id] = a
	w.node.assign(a)
}

// change gives the manager's view of a task anew: messages once sent are never changed.
func (w *world) change(a *warrenv1.Assignment, f func(*warrenv1.Task)) {
	a = proto.CloneOf(a)
	f(a.Task)
	w.wanted[a.Task.Meta.Id] = a
	w.node.assign(a)
}

func (w *world) shutdown(r *rapid.T) {
	w.change(w.pick(r), func(t *warrenv1.Task) { t.Desired = wantShutdown })
}

func (w *world) lose(r *rapid.T) {
	w.change(w.pick(r), func(t *warrenv1.Task) { t.Status = &warrenv1.TaskStatus{State: lost} })
}

func (w *world) remove(r *rapid.T) {
	id := w.pick(r).GetTask().GetMeta().GetId()
	delete(w.wanted, id)
	w.node.remove(id)
}

func (w *world) exit(r *rapid.T) {
	ids := w.runtime.running()
	if len(ids) == 0 {
		r.Skip("nothing runs")
	}
	w.runtime.end(rapid.SampledFrom(ids).Draw(r, "container"), uint32(rapid.IntRange(0, 2).Draw(r, "code")), false)
	w.settle()
}

func (w *world) trouble(r *rapid.T) {
	method := rapid.SampledFrom([]string{"create", "start", "remove", "list"}).Draw(r, "method")
	var err error
	if rapid.Bool().Draw(r, "on") {
		err = Transient(fmt.Errorf("%s does not work now", method))
	}
	w.runtime.setTrouble(method, err)
}

func (w *world) pass(r *rapid.T) {
	w.node.pass(time.Duration(rapid.SampledFrom([]int{1, 500, 1500, 60_000}).Draw(r, "ms")) * time.Millisecond)
}

func (w *world) resync(*rapid.T) {
	w.runtime.tell(Resync{})
	w.settle()
}

func (w *world) kill(*rapid.T) {
	w.node.kill()
	w.node.start()
}

func (w *world) reboot(*rapid.T) {
	w.node.kill()
	w.runtime.reboot()
	w.node.start()
}

func (w *world) full(*rapid.T) {
	var all []*warrenv1.Assignment
	for _, id := range w.ids() {
		all = append(all, w.wanted[id])
	}
	w.assignAll(all...)
}

func (w *world) check(r *rapid.T) {
	w.runtime.mu.Lock()
	defer w.runtime.mu.Unlock()
	if len(w.runtime.violations) > 0 {
		r.Fatalf("%q", w.runtime.violations)
	}
}

// calmDown ends all trouble and checks that what is, is what should be.
func (w *world) calmDown() {
	for _, method := range []string{"create", "start", "remove", "list"} {
		w.runtime.setTrouble(method, nil)
	}
	w.runtime.tell(Resync{})
	w.full(nil)
	w.node.pass(10 * time.Minute)
	var want []string
	for _, id := range w.ids() {
		switch status := w.reported[id]; {
		case w.wanted[id].GetTask().GetStatus().GetState() == lost:
			// It has ended for the manager, and is not reported any more.
		case status.GetState() == running:
			want = append(want, id)
		case status.GetState() < complete:
			w.t.Fatalf("task %s came to rest as %v", id, status)
		}
	}
	var got []string
	for _, id := range w.runtime.all() {
		task, _, _ := strings.Cut(id, "-")
		got = append(got, task)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Fatalf("containers of %q are there, want %q", got, want)
	}
}
