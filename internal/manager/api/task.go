package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"iter"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// taskService shows tasks.
type taskService struct{ store *state.Store }

var _ warrenv1connect.TaskServiceHandler = (*taskService)(nil)

// ListTasks implements warrenv1connect.TaskServiceHandler.
func (h *taskService) ListTasks(_ context.Context, req *connect.Request[warrenv1.ListTasksRequest]) (*connect.Response[warrenv1.ListTasksResponse], error) {
	after, err := parsePlace(req.Msg.GetPageToken())
	if err != nil {
		return nil, err
	}
	s, size := h.store.Snapshot(), pageSize(req.Msg.GetPageSize())
	tasks, err := selectTasks(s, req.Msg)
	if err != nil {
		return nil, err
	}
	res := &warrenv1.ListTasksResponse{}
	view := newTaskView(s)
	for t := range listed(view, tasks, after) {
		if len(res.Tasks) == size {
			res.NextPageToken = view.place(res.Tasks[size-1].GetTask()).token()
			break
		}
		res.Tasks = append(res.Tasks, view.entry(t))
	}
	return connect.NewResponse(res), nil
}

// selectTasks iterates over the tasks that a request asks for, those of a slot together and slots in
// order within a service, unless a node is named.
func selectTasks(s state.Snapshot, req *warrenv1.ListTasksRequest) (iter.Seq[*warrenv1.Task], error) {
	var filters []func(*warrenv1.Task) bool
	tasks := tasksInServiceOrder(s)
	if ref := req.GetService(); ref != "" {
		service, err := FindService(s, ref)
		if err != nil {
			return nil, err
		}
		tasks = s.TasksByService(service.GetMeta().GetId())
	}
	if ref := req.GetNode(); ref != "" {
		node, err := findNode(s, ref)
		if err != nil {
			return nil, err
		}
		if req.GetService() == "" {
			tasks = inOrder(s.TasksByNode(node.GetMeta().GetId()))
		} else {
			filters = append(filters, func(t *warrenv1.Task) bool { return t.GetNodeId() == node.GetMeta().GetId() })
		}
	}
	if req.GetRunningOnly() {
		filters = append(filters, func(t *warrenv1.Task) bool {
			return t.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING
		})
	}
	return func(yield func(*warrenv1.Task) bool) {
		for t := range tasks {
			passes := !slices.ContainsFunc(filters, func(f func(*warrenv1.Task) bool) bool { return !f(t) })
			if passes && !yield(t) {
				return
			}
		}
	}, nil
}

// tasksInServiceOrder iterates over all tasks by the name of their service, then by slot.
func tasksInServiceOrder(s state.Snapshot) iter.Seq[*warrenv1.Task] {
	return func(yield func(*warrenv1.Task) bool) {
		for service := range s.ServicesFrom("") {
			for t := range s.TasksByService(service.GetMeta().GetId()) {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// inOrder sorts a node's tasks by service and slot.
func inOrder(tasks iter.Seq[*warrenv1.Task]) iter.Seq[*warrenv1.Task] {
	return slices.Values(slices.SortedStableFunc(tasks, func(a, b *warrenv1.Task) int {
		return cmp.Or(strings.Compare(a.GetServiceName(), b.GetServiceName()), cmp.Compare(a.GetSlot(), b.GetSlot()))
	}))
}

// listed puts tasks that come slot by slot into the order of the list, and leaves out those that do not
// come after the place given. Only one slot's tasks are held and sorted at a time.
func listed(view *taskView, tasks iter.Seq[*warrenv1.Task], after place) iter.Seq[*warrenv1.Task] {
	return func(yield func(*warrenv1.Task) bool) {
		var slot []*warrenv1.Task
		flush := func() bool {
			slices.SortFunc(slot, func(a, b *warrenv1.Task) int { return view.place(a).compare(view.place(b)) })
			for _, t := range slot {
				if (after == nil || view.place(t).compare(after) > 0) && !yield(t) {
					return false
				}
			}
			slot = slot[:0]
			return true
		}
		for t := range tasks {
			if after != nil && slotBefore(t, after) {
				continue
			}
			if len(slot) > 0 && (slot[0].GetServiceId() != t.GetServiceId() || slot[0].GetSlot() != t.GetSlot()) && !flush() {
				return
			}
			slot = append(slot, t)
		}
		flush()
	}
}

// place is where a task stands in the list: service name, slot (hexadecimal, so that it sorts as text),
// node's hostname where the slot is a node, time of creation, id.
type place cursor

const placeParts = 5

func (p place) token() string { return cursor(p).token() }

// compare orders by service and slot, then the newest first.
func (p place) compare(q place) int {
	return cmp.Or(
		slices.Compare(p[:3], q[:3]),
		strings.Compare(q[3], p[3]),
		strings.Compare(q[4], p[4]),
	)
}

func parsePlace(token string) (place, error) {
	c, err := parseToken(token, placeParts)
	return place(c), err
}

// slotBefore tells whether t is in a slot that comes before the place, so that nothing of it is wanted.
func slotBefore(t *warrenv1.Task, p place) bool {
	return cmp.Or(strings.Compare(t.GetServiceName(), p[0]), strings.Compare(sortable(uint64(t.GetSlot())), p[1])) < 0
}

// sortable writes a number so that texts sort as the numbers do.
func sortable(n uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

// taskView shows tasks, and remembers what many of them share.
type taskView struct {
	snapshot state.Snapshot
	images   map[revision]string
	hosts    map[string]string
}

type revision struct {
	service string
	number  uint64
}

func newTaskView(s state.Snapshot) *taskView {
	return &taskView{snapshot: s, images: map[revision]string{}, hosts: map[string]string{}}
}

func (v *taskView) entry(t *warrenv1.Task) *warrenv1.TaskEntry {
	return &warrenv1.TaskEntry{Task: t, NodeHostname: v.hostname(t.GetNodeId()), Image: v.image(t)}
}

func (v *taskView) image(t *warrenv1.Task) string {
	of := revision{t.GetServiceId(), t.GetRevision()}
	image, known := v.images[of]
	if !known {
		image = v.snapshot.Revision(of.service, of.number).GetTask().GetContainer().GetImage()
		v.images[of] = image
	}
	return image
}

func (v *taskView) hostname(node string) string {
	hostname, known := v.hosts[node]
	if !known {
		hostname = v.snapshot.Hostname(node)
		v.hosts[node] = hostname
	}
	return hostname
}

func (v *taskView) place(t *warrenv1.Task) place {
	node := ""
	if t.GetSlot() == 0 {
		node = v.hostname(t.GetNodeId())
	}
	return place{
		t.GetServiceName(), sortable(uint64(t.GetSlot())), node,
		sortable(uint64(t.GetMeta().GetCreatedAt().AsTime().UnixNano())), t.GetMeta().GetId(),
	}
}

// GetTask implements warrenv1connect.TaskServiceHandler.
func (h *taskService) GetTask(_ context.Context, req *connect.Request[warrenv1.GetTaskRequest]) (*connect.Response[warrenv1.GetTaskResponse], error) {
	s := h.store.Snapshot()
	task, err := FindTask(s, req.Msg.GetRef())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.GetTaskResponse{
		Entry: newTaskView(s).entry(task),
		Spec:  s.Revision(task.GetServiceId(), task.GetRevision()).GetTask(),
	}), nil
}

// taskName is what people call a task.
func taskName(s state.Snapshot, t *warrenv1.Task) string {
	return lifecycle.Name(t, s.Hostname(t.GetNodeId()))
}

// compareAge orders tasks by when they were made, the older first.
func compareAge(a, b *warrenv1.Task) int {
	return cmp.Or(
		a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime()),
		strings.Compare(a.GetMeta().GetId(), b.GetMeta().GetId()),
	)
}
