package api

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxCandidates bounds how many objects an ambiguous reference is told to mean.
const maxCandidates = 5

// FindService returns the service that ref names: by name, id, or the beginning of an id.
func FindService(s state.Snapshot, ref string) (*warrenv1.Service, error) {
	if service := s.ServiceByName(ref); service != nil {
		return service, nil
	}
	if service := s.Service(ref); service != nil {
		return service, nil
	}
	return only(byPrefix(ref, s.ServicesByIDPrefix), ambiguity{
		kind: "service", ref: ref, list: "warrenctl service ls",
	}, func(service *warrenv1.Service) string {
		return fmt.Sprintf("%s (%s)", service.GetMeta().GetId(), service.GetSpec().GetName())
	})
}

// findNode returns the node that ref names: by id, hostname, or the beginning of an id.
func findNode(s state.Snapshot, ref string) (*warrenv1.Node, error) {
	if node := s.Node(ref); node != nil {
		return node, nil
	}
	label := func(node *warrenv1.Node) string {
		return fmt.Sprintf("%s (%s, %s)", node.GetMeta().GetId(), node.GetFacts().GetHostname(), node.GetStatus().GetAddr())
	}
	said := ambiguity{kind: "node", ref: ref, list: "warrenctl node ls"}
	if named := firstFew(s.NodesByHostname(ref)); len(named) > 0 {
		return only(named, said, label)
	}
	return only(byPrefix(ref, s.NodesByIDPrefix), said, label)
}

// FindTask returns the task that ref names: by id, the beginning of one, or SERVICE.SLOT
// (SERVICE.NODE of a global service), which is the slot's newest task that has not ended, or else its newest.
func FindTask(s state.Snapshot, ref string) (*warrenv1.Task, error) {
	if task := s.Task(ref); task != nil {
		return task, nil
	}
	if name, slot, ok := strings.Cut(ref, "."); ok {
		if service := s.ServiceByName(name); service != nil {
			return newestOf(s, service, slot)
		}
	}
	return only(byPrefix(ref, s.TasksByIDPrefix), ambiguity{
		kind: "task", ref: ref, list: "warrenctl task ls",
	}, func(task *warrenv1.Task) string {
		return fmt.Sprintf("%s (%s)", task.GetMeta().GetId(), taskName(s, task))
	})
}

// newestOf returns the newest task of a service's slot, as a user writes it behind the dot. Who asks for it means one
// that lives, where there is one: a replacement that was taken back is newer than the task that has stayed.
func newestOf(s state.Snapshot, service *warrenv1.Service, slot string) (*warrenv1.Task, error) {
	name := service.GetSpec().GetName()
	var tasks iter.Seq[*warrenv1.Task]
	if service.GetSpec().GetGlobal() != nil {
		node, err := findNode(s, slot)
		if err != nil {
			return nil, err
		}
		tasks = func(yield func(*warrenv1.Task) bool) {
			for t := range s.TasksBySlot(service.GetMeta().GetId(), 0) {
				if t.GetNodeId() == node.GetMeta().GetId() && !yield(t) {
					return
				}
			}
		}
	} else {
		number, err := strconv.ParseUint(slot, 10, 32)
		if err != nil || number == 0 {
			return nil, problemf(connect.CodeInvalidArgument, "no task %s.%s: the slots of %s are numbers from 1: `warrenctl service ps %s` shows them", name, slot, name, name)
		}
		tasks = s.TasksBySlot(service.GetMeta().GetId(), uint32(number))
	}
	var newest *warrenv1.Task
	for t := range tasks {
		if newest == nil || lives(t) && !lives(newest) || lives(t) == lives(newest) && compareAge(newest, t) < 0 {
			newest = t
		}
	}
	if newest == nil {
		return nil, problemf(connect.CodeNotFound, "service %s has no task %s.%s: `warrenctl service ps %s` shows those it has", name, name, slot, name)
	}
	return newest, nil
}

func lives(t *warrenv1.Task) bool { return !lifecycle.Ended(t.GetStatus().GetState()) }

// byPrefix searches by the beginning of an id, if ref can be one.
func byPrefix[T state.Object](ref string, search func(string) iter.Seq[T]) []T {
	if !id.IsPrefix(ref) {
		return nil
	}
	return firstFew(search(ref))
}

// firstFew collects one object more than an ambiguous reference lists.
func firstFew[T state.Object](objects iter.Seq[T]) []T {
	var found []T
	for o := range objects {
		if found = append(found, o); len(found) > maxCandidates {
			break
		}
	}
	return found
}

// ambiguity is what to say when a reference does not mean exactly one object.
type ambiguity struct {
	kind, ref string
	list      string // the command that shows what there is
}

// only returns the one object found, or says that there is none or that there are several.
func only[T state.Object](found []T, a ambiguity, label func(T) string) (none T, err error) {
	switch len(found) {
	case 0:
		return none, problemf(connect.CodeNotFound, "no %s named or beginning with %q: `%s` shows them", a.kind, a.ref, a.list)
	case 1:
		return found[0], nil
	}
	var labels []string
	for o := range slices.Values(found[:min(len(found), maxCandidates)]) {
		labels = append(labels, label(o))
	}
	if len(found) > maxCandidates {
		labels = append(labels, "…")
	}
	return none, problemf(connect.CodeInvalidArgument, "%s %q is ambiguous, it may be %s: write more of the id", a.kind, a.ref, strings.Join(labels, ", "))
}
