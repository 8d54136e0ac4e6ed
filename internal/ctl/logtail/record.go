package logtail

import (
	"strings"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// record is a line as programs get it. Bytes that are not UTF-8 are replaced by U+FFFD, as JSON has no others.
type record struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	Task    string    `json:"task"`
	TaskID  string    `json:"taskId"`
	Node    string    `json:"node,omitempty"`
	Stream  string    `json:"stream"`
	Line    string    `json:"line"`
}

func recordOf(l *warrenv1.LogLine) record {
	service, _, _ := strings.Cut(l.GetTaskName(), ".") // it has no dot, and a task's begins with it and a dot
	stream := "stdout"
	if l.GetStream() == warrenv1.OutputStream_OUTPUT_STREAM_STDERR {
		stream = "stderr"
	}
	return record{
		Time: l.GetTime().AsTime(), Service: service, Task: l.GetTaskName(), TaskID: l.GetTaskId(), Node: l.GetNodeHostname(),
		Stream: stream, Line: string(l.GetLine()),
	}
}
