package dispatch

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// maxClerkTasks bounds the reports proposed at once.
	maxClerkTasks = 1000
	// maxRefusals bounds how often in a row a session's reports are decided anew because the state had
	// moved on. A task has few other writers, so that even a handful does not happen.
	maxRefusals = 16
	// maxText bounds each text of a status, which every manager keeps in memory.
	maxText = 2 << 10
)

// reportBook is what an agent has reported and is not being written yet: of each task the latest.
// It needs no bound of its own, since it is only given tasks of the agent's node.
type reportBook struct {
	pending map[string]*warrenv1.TaskStatus // by task
	clerk   bool                            // a goroutine is writing
}

// add notes a later report.
func (b *reportBook) add(task string, status *warrenv1.TaskStatus) {
	if b.pending == nil {
		b.pending = map[string]*warrenv1.TaskStatus{}
	}
	if before := b.pending[task]; before == nil || later(before, status) {
		b.pending[task] = status
	}
}

// putBack notes an earlier report again, unless a later one has come.
func (b *reportBook) putBack(task string, status *warrenv1.TaskStatus) {
	if now := b.pending[task]; now == nil || !later(status, now) {
		b.add(task, status)
	}
}

// later tells whether observed may follow known: it does not go back behind it in (attempt, state), nor,
// where these are the same, in time, and what is known has not ended.
func later(known, observed *warrenv1.TaskStatus) bool {
	if lifecycle.Ended(known.GetState()) {
		return false
	}
	switch lifecycle.Compare(observed, known) {
	case 0:
		return !observed.GetSince().AsTime().Before(known.GetSince().AsTime())
	case 1:
		return true
	}
	return false
}

// reportable tells whether a state is an agent's to report: the earlier ones are the scheduler's, and
// that a task is lost is said of its node.
func reportable(s warrenv1.TaskState) bool {
	return s >= warrenv1.TaskState_TASK_STATE_PREPARING && s < warrenv1.TaskState_TASK_STATE_LOST
}

// decideStatus returns what a report of a node changes of a task, nil for nothing.
func decideStatus(s state.Snapshot, node, task string, observed *warrenv1.TaskStatus, now time.Time) *state.Transaction {
	t := s.Task(task)
	if t.GetNodeId() != node || !assigned(t) || !later(t.GetStatus(), observed) || proto.Equal(t.GetStatus(), observed) {
		return nil
	}
	transaction := state.New(now)
	state.Update(transaction, t, func(t *warrenv1.Task) { t.Status = atHome(s.Node(node), observed) })
	return transaction
}

// atHome is a status without an address that is not its node's to give: no agent can draw what is meant for another
// node's tasks to itself.
func atHome(node *warrenv1.Node, observed *warrenv1.TaskStatus) *warrenv1.TaskStatus {
	if observed.GetAddress() == "" {
		return observed
	}
	addr, err := netip.ParseAddr(observed.GetAddress())
	subnet, subnetErr := netip.ParsePrefix(node.GetNetwork().GetSubnet())
	if err == nil && subnetErr == nil && subnet.Contains(addr) {
		return observed
	}
	observed = proto.CloneOf(observed)
	observed.Address, observed.Serving = "", false
	return observed
}

// note takes in a report and has it written. While one is being written the next ones gather.
func (t *term) note(s *session, report *warrenv1.StatusReport) {
	snapshot := t.store.Snapshot()
	strays := 0
	s.mu.Lock()
	for _, r := range report.GetTasks() {
		// A task that is gone is no stray: its removal is on its way to the agent.
		known := snapshot.Task(r.GetTaskId())
		if known != nil && known.GetNodeId() != s.node || !reportable(r.GetStatus().GetState()) {
			strays++
		} else if known != nil {
			s.reports.add(r.GetTaskId(), clip(r.GetStatus()))
		}
	}
	s.mu.Unlock()
	if strays > 0 {
		t.logger.Warn("an agent reported what is not its to report", "node", s.node, "tasks", strays)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reports.clerk && len(s.reports.pending) > 0 {
		s.reports.clerk = true
		t.clerks.Go(func() { t.clerk(s) })
	}
}

// clerk writes what a session's agent has reported until nothing is left. What was reported before the
// session ended is written all the same.
func (t *term) clerk(s *session) {
	for refusals := 0; ; {
		batch := s.takeReports()
		if batch == nil {
			return
		}
		refused, err := t.writeReports(s, batch)
		if refusals++; refused == 0 {
			refusals = 0
		}
		if err == nil && refusals == maxRefusals {
			err = fmt.Errorf("%d reports overtaken %d times", refused, refusals)
		}
		if err != nil {
			// The agent opens a new session and reports everything anew.
			if t.ctx.Err() == nil {
				t.logger.Warn("status not written", "node", s.node, "error", err)
			}
			t.leave(s, connect.NewError(connect.CodeUnavailable, fmt.Errorf("write status: %w", err)), unknown(time.Now(), sessionBroke))
			return
		}
	}
}

// takeReports returns what is to be written next; nil where nothing is, which discharges the clerk.
func (s *session) takeReports() map[string]*warrenv1.TaskStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.reports
	if len(b.pending) == 0 {
		b.clerk = false
		return nil
	}
	if len(b.pending) <= maxClerkTasks {
		taken := b.pending
		b.pending = nil
		return taken
	}
	taken := make(map[string]*warrenv1.TaskStatus, maxClerkTasks)
	for task, status := range b.pending {
		if len(taken) == maxClerkTasks {
			break
		}
		taken[task] = status
		delete(b.pending, task)
	}
	return taken
}

// writeReports proposes what the batch changes, and tells how many of it have to be decided anew.
func (t *term) writeReports(s *session, batch map[string]*warrenv1.TaskStatus) (refused int, err error) {
	snapshot, now := t.store.Snapshot(), time.Now()
	var tasks []string
	var transactions []*state.Transaction
	for task, status := range batch {
		if transaction := decideStatus(snapshot, s.node, task, status, now); transaction != nil {
			tasks, transactions = append(tasks, task), append(transactions, transaction)
		}
	}
	if len(transactions) == 0 {
		return 0, nil
	}
	results, err := t.proposer.Propose(t.ctx, transactions...)
	if err != nil {
		return 0, err
	}
	for i, why := range results {
		switch {
		case why == nil, errors.Is(why, state.ErrNotFound):
		case errors.Is(why, state.ErrConflict):
			refused++
			s.mu.Lock()
			s.reports.putBack(tasks[i], batch[tasks[i]])
			s.mu.Unlock()
		default:
			t.logger.Error("status refused", "node", s.node, "task", tasks[i], "error", why)
		}
	}
	return refused, nil
}

// clip shortens the texts of a status that no honest agent makes so long. The status is the caller's own.
func clip(s *warrenv1.TaskStatus) *warrenv1.TaskStatus {
	s.Message, s.Error = head(s.GetMessage()), head(s.GetError())
	s.ContainerId, s.ImageDigest = head(s.GetContainerId()), head(s.GetImageDigest())
	if s.Exit != nil {
		s.Exit.LastOutput = tail(s.GetExit().GetLastOutput())
	}
	return s
}

func head(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

func tail(text string) string {
	if len(text) <= maxText {
		return text
	}
	begin := len(text) - maxText
	for !utf8.RuneStart(text[begin]) {
		begin++
	}
	return text[begin:]
}
