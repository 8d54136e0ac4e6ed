package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// taskOn is the task of a slot of web on a node.
func taskOn(slot uint32, node string, state warrenv1.TaskState) *warrenv1.TaskEntry {
	return &warrenv1.TaskEntry{
		Task: &warrenv1.Task{
			Meta: &warrenv1.Meta{Id: fmt.Sprint(node, slot)}, ServiceId: "webid", ServiceName: "web", Slot: slot, NodeId: node,
			Desired: warrenv1.DesiredState_DESIRED_STATE_RUNNING, Status: &warrenv1.TaskStatus{State: state},
		},
		NodeHostname: node,
	}
}

func draining() *warrenv1.Node {
	return &warrenv1.Node{Spec: &warrenv1.NodeSpec{
		Availability: warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN, DrainDeadline: timestamppb.New(epoch.Add(10 * time.Minute)),
	}}
}

func TestPicturesOfADrain(t *testing.T) {
	stopping := taskOn(1, "n1", warrenv1.TaskState_TASK_STATE_STOPPING)
	pulling := taskOn(2, "n2", preparing)
	pulling.Task.Status.Message = "pull nginx: 34 %"
	homeless := taskOn(3, "", pending)
	homeless.Task.Status.Message = "2 nodes: 1 lacks 512 MiB, 1 drained"
	wanted := map[string][]*warrenv1.TaskEntry{"webid": {
		taskOn(2, "n1", running), pulling, taskOn(3, "n1", running), homeless, taskOn(4, "n1", running), taskOn(4, "n2", running), taskOn(5, "n1", running),
	}}
	on := func(slots ...uint32) (all []*warrenv1.TaskEntry) {
		for _, slot := range slots {
			all = append(all, taskOn(slot, "n1", running))
		}
		return all
	}
	for form, terminal := range map[string]bool{"terminal": true, "pipe": false} {
		var seen, transcript bytes.Buffer
		stream := output.Stream{Writer: &seen, Terminal: terminal}
		var pic drainPicture = &drainJournal{stream: stream, last: map[*drain]drainLine{}}
		if terminal {
			pic = &drainBars{screen{stream: stream}}
		}
		d := &drain{node: Draining{ID: "n1", Hostname: "n1"}, began: epoch, improved: epoch, most: -1}
		show := func(at time.Duration, what string) {
			seen.Reset()
			pic.draw([]*drain{d}, epoch.Add(at))
			fmt.Fprintf(&transcript, "# %s\n%s", what, strings.ReplaceAll(seen.String(), "\x1b", "^"))
		}
		show(0, "nothing is known")
		d.observe(draining(), append([]*warrenv1.TaskEntry{stopping}, on(2, 3, 4, 5, 6, 7)...), epoch)
		d.others = wanted
		show(0, "the first picture")
		d.observe(draining(), on(3), epoch.Add(time.Minute))
		show(time.Minute, "one is left")
		show(2*time.Minute, "nothing is new")
		d.observe(draining(), []*warrenv1.TaskEntry{taskOn(3, "n1", failed)}, epoch.Add(3*time.Minute))
		show(3*time.Minute, "empty")
		show(4*time.Minute, "over")
		golden(t, "drain-"+form, transcript.Bytes())
	}
}

func TestADrainThatComesToNothingIsExplained(t *testing.T) {
	d := &drain{node: Draining{ID: "n1", Hostname: "n1"}, began: epoch, improved: epoch, most: -1}
	d.observe(draining(), []*warrenv1.TaskEntry{taskOn(1, "n1", running)}, epoch)
	for _, c := range []struct {
		limits Limits
		at     time.Duration
		want   string
	}{
		{Limits{}, time.Hour, ""},
		{Limits{Timeout: time.Minute}, 59 * time.Second, ""},
		{Limits{Timeout: time.Minute}, time.Minute, "n1: not empty within 1m0s: 1 of 1 tasks left; web.1: waits for its turn; it goes on"},
		{Limits{Stall: time.Minute}, time.Minute, "n1: no task has gone for 1m0s: 1 of 1 tasks left"},
	} {
		if got := d.stuck(c.limits, epoch.Add(c.at)); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("after %v it is %q, want %q", c.at, got, c.want)
		}
	}
	d.node.Version = 7
	d.observe(&warrenv1.Node{Meta: &warrenv1.Meta{Version: 6}, Spec: &warrenv1.NodeSpec{}}, nil, epoch)
	if d.done() || d.stuck(Limits{}, epoch) != "" {
		t.Error("what is older than the order counts")
	}
	down := draining()
	down.Meta, down.Status = &warrenv1.Meta{Version: 7}, &warrenv1.NodeStatus{State: warrenv1.NodeState_NODE_STATE_DOWN}
	d.observe(down, []*warrenv1.TaskEntry{taskOn(1, "n1", running)}, epoch)
	if got := d.counts(); got != "1 of 1 tasks left, and the node is down" {
		t.Errorf("it says %q", got)
	}
	d.observe(&warrenv1.Node{Meta: &warrenv1.Meta{Version: 8}, Spec: &warrenv1.NodeSpec{}}, nil, epoch)
	if got := d.stuck(Limits{}, epoch); got != "n1 is not being drained any more: somebody has set it to active" || d.done() {
		t.Errorf("it is %q", got)
	}
	d.gone = true
	if !d.done() {
		t.Error("a node that was removed is waited for")
	}
}
