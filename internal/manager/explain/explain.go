package explain

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/lifecycle"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxQuoteBytes bounds what is quoted of a program or a node in one line.
const maxQuoteBytes = 300

// scene is what an explanation rests on.
type scene struct {
	state.Snapshot
	told []*warrenv1.Event // oldest first
	now  time.Time
}

// nodeName is what people call the node of that id.
func (s scene) nodeName(id string) string {
	return cmp.Or(s.Hostname(id), id)
}

// taskName is what people call a task.
func (s scene) taskName(t *warrenv1.Task) string { return lifecycle.Name(t, s.nodeName(t.GetNodeId())) }

// at writes a time for people: of the same day without the date.
func (s scene) at(t *timestamppb.Timestamp) string {
	when := t.AsTime().UTC()
	if when.Format(time.DateOnly) == s.now.UTC().Format(time.DateOnly) {
		return when.Format("15:04:05 UTC")
	}
	return when.Format("2006-01-02 15:04:05 UTC")
}

// since writes since when something is so, where that is known.
func (s scene) since(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return " since " + s.at(t)
}

// word makes "running" of TASK_STATE_RUNNING.
func word(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", "-")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// firstLine returns the first line of a text that has something in it.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return bounded(line)
}

// lastLine returns the last such line.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return bounded(text[strings.LastIndexByte(text, '\n')+1:])
}

func bounded(line string) string {
	line = strings.TrimSpace(line)
	if len(line) > maxQuoteBytes {
		line = strings.ToValidUTF8(line[:maxQuoteBytes], "") + "…"
	}
	return line
}

// because adds a reason, if there is one.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// by adds who it was, if that is known.
func by(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}
