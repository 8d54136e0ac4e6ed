package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/cuemby/warren/internal/ctl/output"
)

const (
	barWidth = 20
	// outputLines of a task at fault are shown.
	outputLines = 3
	// Lines that only count are printed this far apart, further and further while they go on.
	countGap    = time.Second
	countGapMax = 30 * time.Second
)

// picture shows trackers.
type picture interface {
	// draw shows what has changed. It returns when it wants to draw again although nothing
	// happens; zero for never.
	draw(trackers []*Tracker, now time.Time) time.Time
}

// newPicture returns the picture that suits the stream.
func newPicture(s output.Stream) picture {
	if s.Terminal {
		return &bars{screen{stream: s}}
	}
	return &journal{stream: s, last: map[*Tracker]entry{}}
}

// bars redraws a bar for each service in place.
type bars struct{ screen }

func (b *bars) draw(trackers []*Tracker, now time.Time) time.Time {
	name := 0
	for _, t := range trackers {
		name = max(name, len(t.target.Name))
	}
	var lines []string
	ages := false
	for _, t := range trackers {
		drawn, aged := b.service(t, name, now)
		lines = append(lines, drawn...)
		ages = ages || aged
	}

	b.show(lines)
	if ages {
		return now.Add(time.Second)
	}
	return time.Time{}
}

// service draws one service; aged tells that a line holds an age.
func (b *bars) service(t *Tracker, width int, now time.Time) (lines []string, aged bool) {
	verdict, why := t.Verdict(now)
	p := t.latest.GetProgress()
	full := 0
	if p.GetDesired() > 0 {
		there := p.GetRunning()
		if t.underWay() {
			there = p.GetUpdated()
		}
		full = int(min(there, p.GetDesired())) * barWidth / int(p.GetDesired())
	}
	colour := output.Warning
	status := t.Counts()
	switch verdict {
	case Stuck:
		colour = output.Bad
		status += ", " + cmp.Or(t.gist, why)
	case Arrived:
		colour = output.Good
		if !t.underWay() {
			full = barWidth
		}
		status += t.ending()
	default:
		if stages := t.Stages(); stages != "" {
			status += ", " + stages
		}
	}
	lines = append(lines, fmt.Sprintf("%-*s  %s%s  %s", width, t.target.Name,
		b.stream.Paint(colour, strings.Repeat("━", full)),
		b.stream.Paint(output.Faint, strings.Repeat("─", barWidth-full)), status))
	if verdict == Arrived {
		return lines, false
	}

	indent := strings.Repeat(" ", width+2)
	if phase := t.Phase(now); phase != "" {
		lines = append(lines, indent+phase)
		aged = t.phaseAges()
	}
	if doing := t.Doing(); doing != "" {
		lines = append(lines, indent+b.stream.Paint(output.Faint, doing))
	}
	if reason := t.Reason(); reason != "" {
		line := indent + b.stream.Paint(output.Bad, reason)
		if age := t.reasonAge(now); age != "" {
			// The age comes first: the end of a long line is cut.
			line = indent + b.stream.Paint(output.Faint, age+": ") + b.stream.Paint(output.Bad, reason)
			aged = true
		}
		lines = append(lines, line)
		for _, out := range t.LastOutput(outputLines) {
			lines = append(lines, indent+b.stream.Paint(output.Faint, "│ "+out))
		}
	}
	return lines, aged
}

// screen redraws lines in place.
type screen struct {
	stream output.Stream
	height int
}

func (s *screen) show(lines []string) {
	var frame strings.Builder
	if s.height > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", s.height)
	}
	for _, line := range lines {
		// A line longer than the terminal would wrap, and the next frame begin at the wrong place.
		if width := s.stream.Width(); width > 1 && text.StringWidthWithoutEscSequences(line) >= width {
			line = text.Snip(line, width-1, "…")
		}
		frame.WriteString(line + "\x1b[K\n")
	}
	frame.WriteString("\x1b[J")
	fmt.Fprint(s.stream, frame.String())
	s.height = len(lines)
}

// journal prints a line where something has changed.
type journal struct {
	stream output.Stream
	last   map[*Tracker]entry
}

// entry is what was printed last of a service.
type entry struct {
	counts, stages string
	phase, reason  string
	verdict        Verdict
	at             time.Time
	gap            time.Duration
}

func (j *journal) draw(trackers []*Tracker, now time.Time) time.Time {
	var next time.Time
	for _, t := range trackers {
		verdict, _ := t.Verdict(now)
		last, printed := j.last[t]
		e := entry{counts: t.Counts(), stages: t.Stages(), reason: t.Reason(), verdict: verdict, at: now, gap: countGap}
		if verdict == Working {
			e.phase = t.Phase(time.Time{})
		}
		news := !printed || e.verdict != last.verdict || e.reason != last.reason && e.reason != "" || e.phase != last.phase && e.phase != ""
		switch {
		case last.verdict != Working || !news && e.counts == last.counts && e.stages == last.stages:
			continue
		case t.latest == nil && t.lost == "" && verdict == Working:
			continue // nothing is known yet
		case !news:
			if due := last.at.Add(last.gap); now.Before(due) {
				if next.IsZero() || due.Before(next) {
					next = due
				}
				continue
			}
			e.gap = min(2*last.gap, countGapMax)
			if e.reason == "" {
				// A reason that comes back is not news either.
				e.reason = last.reason
			}
		}
		j.print(t, e, last)
		j.last[t] = e
	}
	return next
}

func (j *journal) print(t *Tracker, e, last entry) {
	line := t.target.Name + ": " + e.counts
	switch {
	case e.verdict == Arrived:
		j.stream.Printf("%s", line+t.ending())
		return
	case e.verdict == Stuck:
		return // the error that the command ends with says it
	case e.reason != "" && e.reason != last.reason:
		line += " — " + e.reason
	case e.stages != "" || e.phase != "" && e.phase != last.phase:
		said := []string{e.stages, e.phase}
		line += " (" + strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), "; ") + ")"
	}
	j.stream.Printf("%s", line)
	if e.reason != last.reason {
		for _, out := range t.LastOutput(outputLines) {
			j.stream.Printf("  | %s", out)
		}
	}
}
