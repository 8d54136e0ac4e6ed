package events_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestAnEventIsToldToWhoAsksForIt(t *testing.T) {
	at := timestamppb.New(statetest.Epoch)
	later := timestamppb.New(statetest.Epoch.Add(time.Second))
	service := &warrenv1.Event{
		Time: at, Object: warrenv1.EventObject_EVENT_OBJECT_SERVICE, ObjectId: "service0001", ObjectName: "web", ServiceId: "service0001",
		Action: "scaled", By: "anna",
	}
	task := &warrenv1.Event{
		Time: at, Object: warrenv1.EventObject_EVENT_OBJECT_TASK, ObjectId: "task000001", ObjectName: "web.3", ServiceId: "service0001",
		NodeId: "node000001", NodeName: "n1", Action: "failed",
	}
	unplaced := &warrenv1.Event{Time: at, Object: warrenv1.EventObject_EVENT_OBJECT_TASK, ObjectId: "task000002", ObjectName: "web.4", ServiceId: "service0001", Action: "created"}
	node := &warrenv1.Event{Time: at, Object: warrenv1.EventObject_EVENT_OBJECT_NODE, ObjectId: "node000001", ObjectName: "n1", NodeId: "node000001", NodeName: "n1", Action: "drained", By: "bert"}
	network := &warrenv1.Event{Time: at, Object: warrenv1.EventObject_EVENT_OBJECT_NETWORK, ObjectId: "network001", ObjectName: "web", Action: "created"}
	all := map[string]*warrenv1.Event{"service": service, "task": task, "unplaced": unplaced, "node": node, "network": network}
	for name, c := range map[string]struct {
		req  *warrenv1.WatchEventsRequest
		want []string
	}{
		"all":                    {&warrenv1.WatchEventsRequest{}, []string{"service", "task", "unplaced", "node", "network"}},
		"until then":             {&warrenv1.WatchEventsRequest{Until: at}, nil},
		"until later":            {&warrenv1.WatchEventsRequest{Until: later}, []string{"service", "task", "unplaced", "node", "network"}},
		"a service":              {&warrenv1.WatchEventsRequest{Services: []string{"web"}}, []string{"service", "task", "unplaced"}},
		"a service's id":         {&warrenv1.WatchEventsRequest{Services: []string{"service0001"}}, []string{"service", "task", "unplaced"}},
		"the beginning of an id": {&warrenv1.WatchEventsRequest{Services: []string{"servic"}}, []string{"service", "task", "unplaced"}},
		"too little of an id":    {&warrenv1.WatchEventsRequest{Services: []string{"servi"}}, nil},
		"half a name":            {&warrenv1.WatchEventsRequest{Services: []string{"we"}}, nil},
		"a node":                 {&warrenv1.WatchEventsRequest{Nodes: []string{"n1"}}, []string{"task", "node"}},
		"a task":                 {&warrenv1.WatchEventsRequest{Tasks: []string{"web.3"}}, []string{"task"}},
		"two tasks":              {&warrenv1.WatchEventsRequest{Tasks: []string{"web.3", "web.4"}}, []string{"task", "unplaced"}},
		"a user":                 {&warrenv1.WatchEventsRequest{By: []string{"anna"}}, []string{"service"}},
		"an action":              {&warrenv1.WatchEventsRequest{Actions: []string{"failed"}}, []string{"task"}},
		"a service on a node":    {&warrenv1.WatchEventsRequest{Services: []string{"web"}, Nodes: []string{"n1"}}, []string{"task"}},
		"a service, but by whom": {&warrenv1.WatchEventsRequest{Services: []string{"web"}, By: []string{"bert"}}, nil},
		"a kind":                 {&warrenv1.WatchEventsRequest{Objects: []warrenv1.EventObject{warrenv1.EventObject_EVENT_OBJECT_NODE}}, []string{"node"}},
	} {
		want := map[string]bool{}
		for _, w := range c.want {
			want[w] = true
		}
		for kind, e := range all {
			if got := events.Wanted(e, c.req); got != want[kind] {
				t.Errorf("%s: %s is wanted: %v", name, kind, got)
			}
		}
	}
}

func TestAnEventTellsItsServiceAndNode(t *testing.T) {
	node := statetest.Node("n1")
	placed := statetest.Task("a", "web", 3, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_ASSIGNED))
	store := statetest.New(t, node)
	of := func(before, after state.Object) *warrenv1.Event {
		all := events.From(store.Snapshot(), state.Change{Before: before, After: after}, statetest.Epoch)
		return all[len(all)-1]
	}
	host := node.GetFacts().GetHostname()
	if e := of(statetest.Task("a", "web", 3, ""), placed); e.GetServiceId() != placed.GetServiceId() || e.GetNodeId() != "n1" || e.GetNodeName() != host {
		t.Errorf("of a task it tells %v", e)
	}
	if e := of(nil, statetest.Replicated("web", 3)); e.GetServiceId() == "" || e.GetNodeId() != "" {
		t.Errorf("of a service it tells %v", e)
	}
	if e := of(nil, node); e.GetNodeId() != "n1" || e.GetNodeName() != host || e.GetServiceId() != "" {
		t.Errorf("of a node it tells %v", e)
	}
}
