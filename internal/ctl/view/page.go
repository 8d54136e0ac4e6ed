package view

import (
	"strings"

	"github.com/cuemby/warren/internal/ctl/output"
)

// page is a description of one object: facts, one a line, under headings.
type page struct {
	lines  []fact
	indent string
}

type fact struct{ indent, name, value string }

// say adds a fact; one without a value is left out.
func (p *page) say(name, value string) {
	if value = output.OneLine(value); value != "" {
		p.lines = append(p.lines, fact{p.indent, name, value})
	}
}

// list adds a fact of several values, one a line.
func (p *page) list(name string, values []string) {
	for _, v := range values {
		p.say(name, v)
		name = ""
	}
}

// pairs adds a fact that is a map, in the order of its keys.
func (p *page) pairs(name string, m map[string]string) {
	p.list(name, sortedPairs(m))
}

// under adds the facts that add adds below a heading, if it adds any.
func (p *page) under(heading string, add func()) {
	before, indent := len(p.lines), p.indent
	p.lines = append(p.lines, fact{indent, heading, ""})
	p.indent += "  "
	add()
	p.indent = indent
	if len(p.lines) == before+1 {
		p.lines = p.lines[:before]
	}
}

// String aligns the values of the whole page.
func (p *page) String() string {
	width := 0
	for _, f := range p.lines {
		if f.value != "" {
			width = max(width, len(f.indent)+len(f.name))
		}
	}
	var b strings.Builder
	for _, f := range p.lines {
		b.WriteString(f.indent + f.name)
		if f.name != "" {
			b.WriteByte(':')
		}
		if f.value != "" {
			blanks := width + 2 - len(f.indent) - len(f.name)
			if f.name == "" {
				blanks++ // for the colon
			}
			b.WriteString(strings.Repeat(" ", blanks) + f.value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
