package supervisor

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Whatever happens in whatever order, (attempt, state) never decreases, what has ended never runs
// again, no two containers of a task run at once, connections go to no program that does not run, is not healthy or is
// being ended, and in the end there is what should be.
func TestNoOrderOfEventsBreaksTheLaws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(r *rapid.T) {
			n := makeNode(t)
			defer func() { n.stop() }()
			n.t = r
			w := &world{node: n, wanted: map[string]*warrenv1.Assignment{}}
			n.runtime.stepTime = rapid.SampledFrom([]time.Duration{0, time.Millisecond}).Draw(r, "step time")
			n.network.attachTime = rapid.SampledFrom([]time.Duration{0, 700 * time.Millisecond}).Draw(r, "attach time")
			n.network.size = rapid.IntRange(1, 20).Draw(r, "addresses")
			r.Repeat(map[string]func(*rapid.T){
				"assign": w.assign, "shutdown": w.shutdown, "remove": w.remove, "lose": w.lose,
				"exit": w.exit, "trouble": w.trouble, "pass": w.pass, "resync": w.resync,
				"kill": w.kill, "reboot": w.reboot, "full": w.full, "listen": w.listen, "overlay": w.overlay, "ail": w.ail,
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
	a.Spec.Network = warrenv1.NetworkMode(rapid.IntRange(0, 3).Draw(r, "network"))
	a.Spec.Container.DrainPeriod = durationpb.New(time.Duration(rapid.IntRange(0, 1).Draw(r, "drain")) * time.Second)
	if rapid.Bool().Draw(r, "declares ports") {
		w.network.change(func() { w.network.declaring[a.Task.Meta.Id] = true })
	}
	if rapid.Bool().Draw(r, "probed") {
		a.Spec.Health = tcpCheck(warrenv1.UnhealthyAction(rapid.IntRange(1, 2).Draw(r, "on failure")))
	}
	w.wanted[a.Task.Meta.Id] = a
	w.node.assign(a)
}

// tcpCheck is one by which an ill program is unhealthy after two seconds.
func tcpCheck(then warrenv1.UnhealthyAction) *warrenv1.HealthCheck {
	return &warrenv1.HealthCheck{
		Probe:    &warrenv1.HealthCheck_Tcp{Tcp: &warrenv1.TcpProbe{Port: 80}},
		Interval: durationpb.New(time.Second), Retries: 2, OnFailure: then,
	}
}

// ail has a program fall ill, or get well.
func (w *world) ail(r *rapid.T) {
	ids := w.runtime.running()
	if len(ids) == 0 {
		r.Skip("nothing runs")
	}
	w.runtime.sicken(rapid.SampledFrom(ids).Draw(r, "container"), rapid.SampledFrom([]string{"", "ill", "very ill"}).Draw(r, "with"))
	w.settle()
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
	method := rapid.SampledFrom(troublesome).Draw(r, "method")
	var err error
	if rapid.Bool().Draw(r, "on") {
		err = Transient(fmt.Errorf("%s does not work now", method))
	}
	w.setTrouble(method, err)
}

// troublesome are the methods of the runtime, and then of the network, that may fail.
var troublesome = []string{"create", "start", "remove", "list", "attach", "detach", "attached"}

func (w *world) setTrouble(method string, err error) {
	w.runtime.setTrouble(method, err)
	w.network.setTrouble(method, err)
}

// listen has a program listen on its ports.
func (w *world) listen(r *rapid.T) {
	ids := w.runtime.running()
	if len(ids) == 0 {
		r.Skip("nothing runs")
	}
	id := rapid.SampledFrom(ids).Draw(r, "container")
	w.network.change(func() { w.network.listens[id] = true })
	w.settle()
}

// overlay has the overlay come up, or not be up yet for who asks from now on.
func (w *world) overlay(r *rapid.T) {
	w.network.setUp(rapid.Bool().Draw(r, "up"))
	w.settle()
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
	w.network.reboot()
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
	if violations := w.violations(); len(violations) > 0 {
		r.Fatalf("%q", violations)
	}
	select {
	case <-w.supervisor.listed:
	default:
		return // it does not know yet what there is
	}
	alive := map[string]bool{}
	for _, id := range w.runtime.running() {
		alive[taskOf(id)] = true
	}
	w.supervisor.mu.Lock()
	defer w.supervisor.mu.Unlock()
	for id := range w.supervisor.tasks {
		if w.network.serves(id) && !alive[id] {
			r.Fatalf("connections are sent to %s, which does not run", id)
		}
	}
	for id, status := range w.told {
		health := status.GetHealth().GetState()
		if len(status.GetIncidents()) > mostIncidents || status.GetServing() && health != healthHealthy && health != 0 {
			r.Fatalf("task %s is told as %v", id, status)
		}
		if w.network.serves(id) && health != healthHealthy && health != 0 && status.GetState() == running {
			r.Fatalf("connections are sent to %s, which is not healthy: %v", id, status)
		}
	}
}

// calmDown ends all trouble and checks that what is, is what should be.
func (w *world) calmDown() {
	for _, method := range troublesome {
		w.setTrouble(method, nil)
	}
	w.network.setUp(true)
	for _, id := range w.runtime.all() {
		w.runtime.sicken(id, "")
	}
	w.runtime.tell(Resync{})
	w.full(nil)
	w.node.pass(10 * time.Minute)
	w.network.change(func() {
		for _, id := range w.runtime.running() {
			w.network.listens[id] = true
		}
	})
	w.settle()
	want, placed := []string{}, []string{}
	for _, id := range w.ids() {
		switch status := w.reported[id]; {
		case w.wanted[id].GetTask().GetStatus().GetState() == lost:
			// It has ended for the manager, and is not reported any more.
		case status.GetState() == running:
			want = append(want, id)
			on := onOverlay(w.wanted[id].GetSpec())
			if on {
				placed = append(placed, id)
			}
			if probed := w.wanted[id].GetSpec().GetHealth() != nil; probed != (status.GetHealth().GetState() == healthHealthy) {
				w.t.Fatalf("task %s came to rest as %v", id, status)
			}
			if !status.GetServing() || status.GetMessage() != "" || (status.GetAddress() != "") != on || w.network.serves(id) != on {
				w.t.Fatalf("task %s came to rest as %v, served %v", id, status, w.network.serves(id))
			}
		case status.GetState() < complete:
			w.t.Fatalf("task %s came to rest as %v", id, status)
		}
	}
	got := []string{}
	for _, id := range w.runtime.all() {
		got = append(got, taskOf(id))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Fatalf("containers of %q are there, want %q", got, want)
	}
	if attached, err := w.network.Attached(w.supervisor.ctx); err != nil || !slices.Equal(attached, placed) {
		w.t.Fatalf("attached are %q (%v), want %q", attached, err, placed)
	}
}
