package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A task whose program has ended so often within so long is in a loop, also at a moment when it runs.
const (
	loopExits = 3
	loopTime  = 15 * time.Minute
)

// ailment tells why a task does not do its work; nothing where it does. It speaks of the task alone: others say what
// keeps it from being replaced.
func (s scene) ailment(t *warrenv1.Task) (c cause, ails bool) {
	c = about(s.taskName(t), t)
	status := t.GetStatus()
	switch {
	case lifecycle.Ended(status.GetState()):
		return s.end(c, t)
	case slot.Unassigned(t):
		return s.waits(c, t), true
	}
	if found, ails := s.nodeAilment(c, t); ails {
		return found, true
	}
	if !slot.Running(t) {
		return s.starting(c, t), true
	}
	health := status.GetHealth()
	switch {
	case health.GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY:
		return s.unhealthy(c, t, "is unhealthy"+s.since(health.GetSince())+because(firstLine(health.GetOutput()))), true
	case looping(t, s.now):
		return s.crash(c, t), true
	case !slot.Serving(t) && health.GetState() == warrenv1.HealthState_HEALTH_STATE_STARTING && health.GetOutput() != "":
		return s.unhealthy(c, t, "has not passed a probe yet: "+firstLine(health.GetOutput())), true
	case !slot.Serving(t) && strings.Contains(status.GetMessage(), "does not listen"):
		c.rank, c.key, c.message = silent, status.GetMessage(), status.GetMessage()
		c.remedy = fmt.Sprintf("have the program listen on that port of all its addresses (0.0.0.0), or correct the target port in `warrenctl service update %s --publish`", t.GetServiceName())
		return c, true
	case !slot.Serving(t):
		c.rank, c.key = inProgress, "not serving"
		c.message = "runs, and takes no connections yet" + because(status.GetMessage())
		return c, true
	}
	return c, false
}

// about begins a cause that is one task's.
func about(name string, t *warrenv1.Task) cause {
	return cause{objects: []string{name}, noun: "task", at: t.GetStatus().GetSince().AsTime().UnixNano()}
}

// waits tells why a task has no node.
func (s scene) waits(c cause, t *warrenv1.Task) cause {
	why := t.GetStatus().GetMessage()
	if why == "" {
		c.rank, c.key, c.message = inProgress, "pending", "waits to be given a node"
		return c
	}
	c.rank, c.key, c.message, c.remedy = noRoom, why, why, s.roomRemedy(why, t)
	return c
}

// roomRemedy says what makes a node fit, by what the scheduler says of those that do not. The nearest comes first: a node that lacks room meets
// all else, and one that takes no tasks, where the placement admits it, needs but a word. To change a placement is the last.
func (s scene) roomRemedy(why string, t *warrenv1.Task) string {
	update := "`warrenctl service update " + t.GetServiceName()
	var remedies []string
	add := func(sign, remedy string) {
		if strings.Contains(why, sign) && !slices.Contains(remedies, remedy) {
			remedies = append(remedies, remedy)
		}
	}
	closed := func() {
		add("drained", "let a node take tasks again: `warrenctl node activate NODE`")
		add("paused", "let a node take tasks again: `warrenctl node activate NODE`")
		add("not ready", "bring the nodes back that are away: `warrenctl node ls` shows them")
	}
	add("has no nodes", "have a machine join: `warrenctl cluster join-token worker`")
	add("taken by another task", "have a machine join, or scale down: no two tasks take one port of a node; or publish another port: "+update+" --publish`")
	add("cpu", "make room: reserve less, "+update+" --reserve-cpu`, scale something down or have a machine join")
	add("memory", "make room: reserve less, "+update+" --reserve-memory`, scale something down or have a machine join")
	add("the most per node", "allow more tasks on a node, "+update+" --replicas-max-per-node`, or have a machine join")
	add("overlay", "see what is wrong with the overlay there: `warrenctl node describe NODE`")
	if s.admittedIfOpen(t) {
		closed()
	}
	add("not meet", "give a node what the constraint asks for, `warrenctl node update NODE --label-add KEY=VALUE`, or change it: "+update+" --constraint-rm`")
	add("not of ", "have a machine of that platform join, or allow another")
	if len(remedies) == 0 {
		closed()
	}
	return strings.Join(remedies[:min(len(remedies), 2)], "; or ")
}

// admittedIfOpen tells whether there is a node that takes no tasks now and that the placement of a task's service would admit.
func (s scene) admittedIfOpen(t *warrenv1.Task) bool {
	rules, err := placement.Compile(s.Service(t.GetServiceId()).GetSpec().GetPlacement())
	if err != nil {
		return false
	}
	for n := range s.Nodes() {
		if !placement.Open(n) && rules.Admits(n) {
			return true
		}
	}
	return false
}

// nodeAilment tells what is wrong with the node that a task is on.
func (s scene) nodeAilment(c cause, t *warrenv1.Task) (cause, bool) {
	n := s.Node(t.GetNodeId())
	name := s.nodeName(t.GetNodeId())
	switch n.GetStatus().GetState() {
	case warrenv1.NodeState_NODE_STATE_DOWN:
		c.rank, c.key = lostNode, t.GetNodeId()
		c.message = "waits for node " + name + ", which is down" + s.since(n.GetStatus().GetSince())
		if loss := s.Service(t.GetServiceId()).GetSpec().GetNodeLoss(); loss.GetAction() == warrenv1.NodeLossAction_NODE_LOSS_ACTION_WAIT {
			c.message += ", as the service's policy for lost nodes says"
			if wait := loss.GetWait().AsDuration(); wait > 0 {
				c.message += fmt.Sprintf(", for %v at the most", wait)
			}
		}
		c.remedy = fmt.Sprintf("bring %s back; or have its tasks replaced elsewhere: `warrenctl service update %s --on-node-loss replace`, or `warrenctl node rm %s` if it is gone for good", name, t.GetServiceName(), name)
		return c, true
	case warrenv1.NodeState_NODE_STATE_UNKNOWN, warrenv1.NodeState_NODE_STATE_DISCONNECTED:
		c.rank, c.key = cutOff, t.GetNodeId()
		c.message = "waits for a manager: node " + name + " is not connected to any" + s.since(n.GetStatus().GetSince()) + "; what runs there goes on, and what is new does not get there"
		c.remedy = "see whether warren-agent runs on " + name + " and reaches a manager: `systemctl status warren-agent` there; if it stays away its tasks are replaced elsewhere"
		return c, true
	}
	return c, false
}

// starting tells what keeps a task from running that has a node.
func (s scene) starting(c cause, t *warrenv1.Task) cause {
	status := t.GetStatus()
	if trouble, again := strings.CutPrefix(status.GetMessage(), "trying again: "); again {
		return s.startup(c, t, trouble)
	}
	if status.GetExit() != nil && status.GetError() != "" {
		return s.crash(c, t)
	}
	c.rank, c.key = inProgress, status.GetState().String()
	c.message = "is " + word(status.GetState().String(), "TASK_STATE_") + because(status.GetMessage())
	return c
}

// end tells what was wrong with how a task has ended.
func (s scene) end(c cause, t *warrenv1.Task) (cause, bool) {
	status := t.GetStatus()
	switch status.GetState() {
	case warrenv1.TaskState_TASK_STATE_REJECTED:
		return s.startup(c, t, status.GetError()), true
	case warrenv1.TaskState_TASK_STATE_FAILED:
		return s.crash(c, t), true
	case warrenv1.TaskState_TASK_STATE_COMPLETE:
		c.rank, c.key, c.message = crash, "complete", "its program ends by itself with exit code 0"
		if s.Service(t.GetServiceId()).GetSpec().GetTask().GetRestart().GetCondition() == warrenv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED ||
			s.Service(t.GetServiceId()).GetSpec().GetTask().GetRestart().GetCondition() == warrenv1.RestartCondition_RESTART_CONDITION_ANY {
			c.remedy = fmt.Sprintf("if it is to end so, say that it need not be started again: `warrenctl service update %s --restart-condition on-failure`", t.GetServiceName())
		}
		return c, true
	case warrenv1.TaskState_TASK_STATE_LOST:
		c.rank, c.key = lostNode, status.GetError()
		c.message = "was lost" + because(cmp.Or(status.GetError(), "its node is gone"))
		return c, true
	}
	return c, false
}

// startup tells why a node cannot start a task.
func (s scene) startup(c cause, t *warrenv1.Task, trouble string) cause {
	trouble = general(firstLine(trouble))
	c.key, c.message = trouble, trouble
	if !strings.Contains(trouble, "pull image") && !strings.Contains(trouble, "image not found") {
		c.rank, c.message = startup, "cannot be started: "+trouble
		c.remedy = fmt.Sprintf("correct what it names on node %s, or the service: `warrenctl service update %s`", s.nodeName(t.GetNodeId()), t.GetServiceName())
		if strings.HasPrefix(trouble, "exec: ") { // its image has no such program
			c.remedy = fmt.Sprintf("name a program that the image has: `warrenctl service update %s --entrypoint`, or --args where the image has none of its own", t.GetServiceName())
		}
		return c
	}
	c.rank = image
	name := s.Revision(t.GetServiceId(), t.GetRevision()).GetTask().GetContainer().GetImage()
	switch {
	case strings.Contains(trouble, "unauthorized"):
		c.remedy = fmt.Sprintf("give the nodes credentials for the registry of %s", name)
	case strings.Contains(trouble, "not found"):
		c.remedy = fmt.Sprintf("push %s, or correct it: `warrenctl service update %s --image`", name, t.GetServiceName())
	case strings.Contains(trouble, "no variant"):
		c.remedy = fmt.Sprintf("build %s for that platform, or keep to nodes of another: `warrenctl service update %s --constraint-add`", name, t.GetServiceName())
	default:
		c.remedy = fmt.Sprintf("see whether node %s reaches the registry of %s", s.nodeName(t.GetNodeId()), name)
	}
	return c
}

// general leaves out of an error the name of the container, which is another one for each attempt.
func general(trouble string) string {
	if name, rest, found := strings.Cut(trouble, ": "); found && strings.HasPrefix(name, "create container ") {
		return rest
	}
	return trouble
}

// crash tells how a task's program ends.
func (s scene) crash(c cause, t *warrenv1.Task) cause {
	status := t.GetStatus()
	if output, was := probedToDeath(t); was {
		return s.unhealthy(c, t, "became unhealthy and was restarted"+because(output))
	}
	ended := cmp.Or(status.GetError(), fmt.Sprintf("exit code %d", status.GetExit().GetCode()))
	c.rank, c.key, c.message = crash, firstLine(ended), firstLine(ended)
	if line := lastLine(status.GetExit().GetLastOutput()); line != "" && !strings.Contains(c.message, line) {
		c.message += ": " + line
	}
	if status.GetAttempt() > 1 {
		c.message += fmt.Sprintf(" (attempt %d)", status.GetAttempt())
	}
	c.remedy = fmt.Sprintf("see what it said: `warrenctl service logs %s`; correct it%s", t.GetServiceName(), s.orBack(t))
	if status.GetExit().GetOomKilled() {
		c.rank = memory
		limit := s.Revision(t.GetServiceId(), t.GetRevision()).GetTask().GetLimits().GetMemoryBytes()
		c.remedy = fmt.Sprintf("give it more memory: `warrenctl service update %s --limit-memory`; or have it use less", t.GetServiceName())
		if limit == 0 {
			c.remedy = fmt.Sprintf("reserve what it needs, so that it comes to a node that has it: `warrenctl service update %s --reserve-memory`", t.GetServiceName())
		}
	}
	return c
}

// orBack offers to go back from a task's revision, where that is the current one and there is one to go back to.
func (s scene) orBack(t *warrenv1.Task) string {
	service := s.Service(t.GetServiceId())
	previous := s.Revision(t.GetServiceId(), service.GetPreviousRevision())
	if t.GetRevision() != service.GetRevision() || previous == nil || previous.GetFailure() != "" {
		return ""
	}
	return fmt.Sprintf(", or go back: `warrenctl service rollback %s`", t.GetServiceName())
}

func (s scene) unhealthy(c cause, t *warrenv1.Task, message string) cause {
	c.rank, c.key, c.message = unhealthy, "unhealthy", message
	c.remedy = fmt.Sprintf("see what it says: `warrenctl service logs %s`; or correct the health check: `warrenctl service update %s %s`",
		t.GetServiceName(), t.GetServiceName(), probeFlag(s.Revision(t.GetServiceId(), t.GetRevision()).GetTask().GetHealth()))
	if strings.Contains(message, `exec: "/bin/sh": stat`) {
		c.remedy = fmt.Sprintf("its image has no shell to run the command: have its node probe it from outside, `warrenctl service update %s --health-http`, or --health-tcp, or --health-grpc", t.GetServiceName())
	}
	return c
}

// probeFlag is what a health check is corrected with.
func probeFlag(h *warrenv1.HealthCheck) string {
	switch h.GetProbe().(type) {
	case *warrenv1.HealthCheck_Http:
		return "--health-http"
	case *warrenv1.HealthCheck_Tcp:
		return "--health-tcp"
	case *warrenv1.HealthCheck_Grpc:
		return "--health-grpc"
	}
	return "--health-cmd"
}

// unprefixed leaves out of what a node says of a task that is unhealthy that it is so.
func unprefixed(message string) string { return strings.TrimPrefix(message, "unhealthy: ") }

// probedToDeath tells whether a task's last end was that of an attempt which had become unhealthy, and what its probe
// had seen.
func probedToDeath(t *warrenv1.Task) (output string, was bool) {
	attempt := uint32(0)
	for _, i := range slices.Backward(t.GetStatus().GetIncidents()) {
		switch {
		case i.GetKind() == warrenv1.IncidentKind_INCIDENT_KIND_EXIT && attempt == 0:
			attempt = i.GetAttempt()
		case i.GetKind() == warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY && (attempt == 0 || i.GetAttempt() == attempt):
			return unprefixed(firstLine(i.GetMessage())), true
		case attempt != 0 && i.GetAttempt() < attempt:
			return "", false
		}
	}
	return "", false
}

// looping tells whether a task's program ends again and again.
func looping(t *warrenv1.Task, now time.Time) bool {
	exits := 0
	for _, i := range t.GetStatus().GetIncidents() {
		if i.GetKind() == warrenv1.IncidentKind_INCIDENT_KIND_EXIT && now.Sub(i.GetAt().AsTime()) < loopTime {
			exits++
		}
	}
	return exits >= loopExits
}
