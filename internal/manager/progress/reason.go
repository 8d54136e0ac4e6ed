package progress

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/slot"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxQuoteBytes bounds the line of output that a reason quotes.
const maxQuoteBytes = 200

// reason is one thing that keeps a service from converging.
type reason struct {
	text string
	task string
	at   *timestamppb.Timestamp
}

// latestReason returns what was last said about a slot that is not as it should be; none where
// every slot is well or nothing was said.
func latestReason(service *warrenv1.Service, slots []slot.Slot, wanted demand, m *mover) reason {
	var latest reason
	for i := range slots {
		if !wanted.has(&slots[i]) || satisfied(service, &slots[i], m) {
			continue
		}
		for _, r := range reasons(service, &slots[i], m) {
			if r.text != "" && (latest.text == "" || compareTime(r.at, latest.at) > 0) {
				latest = r
			}
		}
	}
	return latest
}

// rolloutReason is what there is to say of a rollout that is not over: why it rests, and why it goes back.
func rolloutReason(service *warrenv1.Service) reason {
	r := service.GetRollout()
	if rolledOut(service) || r.GetTo() != service.GetRevision() {
		return reason{}
	}
	return reason{text: r.GetMessage(), at: r.GetSince()}
}

// satisfied tells whether a slot has what the spec wants; what once went wrong there is history then.
func satisfied(service *warrenv1.Service, s *slot.Slot, m *mover) bool {
	for _, t := range s.Live {
		if slot.Serving(t) && t.GetRevision() == service.GetRevision() && m.why(t) == "" {
			return true
		}
	}
	return false
}

// reasons lists what is said of a slot, the weightier first: by its tasks that are on their way or are to leave, and
// by the one that ended last, if it is of the current revision.
func reasons(service *warrenv1.Service, s *slot.Slot, m *mover) []reason {
	var found []reason
	for _, t := range s.Live {
		switch status := t.GetStatus(); {
		case !slot.Running(t):
			found = append(found,
				reason{failure(status), t.GetMeta().GetId(), status.GetSince()},
				reason{status.GetMessage(), t.GetMeta().GetId(), status.GetSince()})
		case !slot.Serving(t) && t.GetRevision() == service.GetRevision(): // an older one is about to be replaced anyway
			found = append(found, reason{notServing(status), t.GetMeta().GetId(), status.GetSince()})
		case !kept(service, t) && len(s.Live) == 1:
			found = append(found, reason{m.why(t), t.GetMeta().GetId(), status.GetSince()}) // else what is to come says more
		}
	}
	if len(s.Ended) > 0 && s.Ended[0].GetRevision() == service.GetRevision() {
		last := s.Ended[0]
		found = append(found, reason{ending(last.GetStatus()), last.GetMeta().GetId(), last.GetStatus().GetSince()})
	}
	return found
}

// notServing words what a running task lacks, as its node's agent has found.
func notServing(status *warrenv1.TaskStatus) string {
	// What an agent says stands alone there, and begins and ends accordingly.
	text, why := "runs, but does not take connections yet", strings.TrimPrefix(status.GetMessage(), "runs, but ")
	if h := status.GetHealth(); h.GetState() == warrenv1.HealthState_HEALTH_STATE_UNHEALTHY {
		text, why = "is unhealthy", cmp.Or(lastLine(h.GetOutput()), why)
	}
	if why == "" {
		return text
	}
	return text + ": " + strings.TrimSuffix(why, " yet")
}

// ending words why a task ended; empty where it was told to.
func ending(status *warrenv1.TaskStatus) string {
	switch status.GetState() {
	case warrenv1.TaskState_TASK_STATE_SHUTDOWN:
		return ""
	case warrenv1.TaskState_TASK_STATE_COMPLETE:
		return "its program ended by itself with exit code 0"
	case warrenv1.TaskState_TASK_STATE_LOST:
		return cmp.Or(failure(status), "its node is gone")
	}
	return failure(status)
}

// failure words a task's last error, with the last line its program wrote.
func failure(status *warrenv1.TaskStatus) string {
	text := status.GetError()
	if text == "" {
		return ""
	}
	if line := lastLine(status.GetExit().GetLastOutput()); line != "" && !strings.Contains(text, line) {
		text += ": " + line
	}
	return text
}

func lastLine(output string) string {
	output = strings.TrimRight(output, "\r\n\t ")
	line := strings.TrimSpace(output[strings.LastIndexByte(output, '\n')+1:])
	if len(line) > maxQuoteBytes {
		line = strings.ToValidUTF8(line[:maxQuoteBytes], "") + "…"
	}
	return line
}
