package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Explanation is the page of `why`: what is wanted, what is, why the two differ, and what happened. s says whether
// it is coloured.
func Explanation(s output.Stream, e *warrenv1.ExplainResponse, now time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	well := output.Good
	if len(e.GetCauses()) > 0 {
		well = output.Bad
	}
	line("%s %s %s", capital(Object(e.GetObject())), s.Paint(output.Strong, output.OneLine(e.GetName())), s.Paint(output.Faint, "("+e.GetId()+")"))
	line("Wanted:  %s", output.OneLine(e.GetWanted()))
	line("Is:      %s", s.Paint(well, output.OneLine(e.GetActual())))

	if len(e.GetCauses()) > 0 {
		line("\nWhy, the most likely cause first:")
	}
	for i, c := range e.GetCauses() {
		line("%3d. %s", i+1, output.OneLine(c.GetMessage()))
		if of := holdsOf(c); of != "" {
			line("     %s", s.Paint(output.Faint, "of "+of))
		}
		if c.GetRemedy() != "" {
			line("     %s %s", s.Paint(output.Good, "→"), output.OneLine(c.GetRemedy()))
		}
	}
	if len(e.GetHappenings()) > 0 {
		line("\nWhat happened:")
	}
	aged := make([]string, len(e.GetHappenings()))
	width := 0
	for i, h := range e.GetHappenings() {
		aged[i] = Ago(h.GetAt(), now)
		width = max(width, len(aged[i]))
	}
	for i, h := range e.GetHappenings() {
		said := output.OneLine(h.GetMessage())
		// The message may name what it is about by itself.
		if of := Object(h.GetObject()) + " " + output.OneLine(h.GetObjectName()); !strings.HasPrefix(said, of+" ") {
			said = of + ": " + said
		}
		if by := output.OneLine(h.GetBy()); by != "" {
			said += " (by " + by + ")"
		}
		at := h.GetAt().AsTime().In(now.Location()).Format("2006-01-02 15:04:05")
		line("  %s  %s", s.Paint(output.Faint, fmt.Sprintf("%s  %-*s", at, width, aged[i])), said)
	}
	return b.String()
}

// holdsOf names the objects that a cause holds of.
func holdsOf(c *warrenv1.Cause) string {
	named := make([]string, len(c.GetObjects()))
	for i, o := range c.GetObjects() {
		named[i] = output.OneLine(o)
	}
	if more := int(c.GetCount()) - len(named); more > 0 && len(named) > 0 {
		return strings.Join(named, ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(named, ", ")
}
