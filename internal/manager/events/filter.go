package events

import (
	"slices"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// enough of an id tells it apart from a name, and from other ids.
const enough = 6

// Wanted tells whether an event is one that the request asks for, whenever it happened but before `until`.
func Wanted(e *warrenv1.Event, req *warrenv1.WatchEventsRequest) bool {
	if until := req.GetUntil(); until != nil && !e.GetTime().AsTime().Before(until.AsTime()) {
		return false
	}
	return among(req.GetObjects(), e.GetObject()) && among(req.GetActions(), e.GetAction()) && among(req.GetBy(), e.GetBy()) &&
		anyOf(req.GetServices(), func(ref string) bool { return named(ref, e.GetServiceId(), service(e)) }) &&
		anyOf(req.GetNodes(), func(ref string) bool { return named(ref, e.GetNodeId(), e.GetNodeName()) }) &&
		anyOf(req.GetTasks(), func(ref string) bool {
			return e.GetObject() == warrenv1.EventObject_EVENT_OBJECT_TASK && named(ref, e.GetObjectId(), e.GetObjectName())
		})
}

// service is the name of the service that an event is about, empty if it is about none. It has no dot, and a task's
// begins with it and a dot.
func service(e *warrenv1.Event) string {
	if e.GetServiceId() == "" {
		return ""
	}
	name, _, _ := strings.Cut(e.GetObjectName(), ".")
	return name
}

// named tells whether a name, an id or the beginning of one means the object that has them, if there is one.
func named(ref, id, name string) bool {
	return id != "" && (ref == name || ref == id || len(ref) >= enough && strings.HasPrefix(id, ref))
}

func among[T comparable](wanted []T, is T) bool {
	return len(wanted) == 0 || slices.Contains(wanted, is)
}

func anyOf(wanted []string, is func(string) bool) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, is)
}
