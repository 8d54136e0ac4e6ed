package supervisor

import (
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// What is kept of what befell a task.
const (
	mostIncidents = 10
	incidentBytes = 512
)

// wordsBytes is how much is kept of a message or an error of a status. What they quote is an image's or a registry's, of
// any length.
const wordsBytes = 4 << 10

// befell adds to what befell the current attempt, whose program began then; zero where it did not. Whether an end was soon cannot be
// told from when the task was made: its image may have been pulled for minutes.
func befell(s *warrenv1.TaskStatus, kind warrenv1.IncidentKind, started, at time.Time, message string) {
	i := &warrenv1.Incident{At: timestamppb.New(at), Attempt: s.GetAttempt(), Kind: kind, Message: shorten(message, incidentBytes)}
	if !started.IsZero() {
		i.StartedAt = timestamppb.New(started)
	}
	s.Incidents = append(s.Incidents, i)
	s.Incidents = s.Incidents[max(0, len(s.Incidents)-mostIncidents):]
}

// exited is what is kept of how a program ended by itself.
func exited(exit Exit, limits *warrenv1.Resources, output string) string {
	what := describe(exit, limits)
	if what == "" {
		what = "exit code 0"
	}
	if output == "" {
		return what
	}
	// The last lines say most of why.
	const gap = ":\n"
	if surplus := len(what) + len(gap) + len(output) - incidentBytes; surplus > 0 && surplus < len(output) {
		output = output[surplus:]
		if _, whole, found := strings.Cut(output, "\n"); found {
			output = whole
		}
	}
	return what + gap + output
}

// shorten cuts a text to what is kept, at a character's end. Bytes that are none are replaced: a message that holds such a
// text can be neither recorded nor sent.
func shorten(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	end := most
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
