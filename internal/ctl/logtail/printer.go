package logtail

import (
	"bufio"
	"errors"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// longestLine bounds what is held of a line that comes in pieces; a longer one is printed in parts.
const longestLine = 1 << 20

// timeFormat has all its digits, so that lines align and sort.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// printer writes lines onto the two outputs.
type printer struct {
	look     Look
	out, err sink
	streams  *output.Streams
	width    int // of the longest name so far
	pieces   map[source]*warrenv1.LogLine
	failed   error // of writing objects
}

type sink struct {
	output.Stream
	buffer *bufio.Writer
}

// source is where the pieces of one line come from.
type source struct {
	task   string
	stream warrenv1.OutputStream
}

func newPrinter(s *output.Streams, look Look) *printer {
	return &printer{
		look:    look,
		streams: s,
		out:     sink{s.Out, bufio.NewWriter(s.Out)},
		err:     sink{s.Err, bufio.NewWriter(s.Err)},
		pieces:  map[source]*warrenv1.LogLine{},
	}
}

// line prints a line, or keeps it until its rest has come.
func (p *printer) line(l *warrenv1.LogLine) {
	from := source{l.GetTaskId(), l.GetStream()}
	if begun := p.pieces[from]; begun != nil {
		// The line keeps the time at which it began.
		begun.Line = append(begun.Line, l.GetLine()...)
		begun.Partial = l.GetPartial()
		l = begun
	}
	if l.GetPartial() && len(l.GetLine()) < longestLine {
		p.pieces[from] = l
		return
	}
	delete(p.pieces, from)
	p.write(l)
}

// flush prints the lines whose rest has not come.
func (p *printer) flush() {
	for from, l := range p.pieces {
		p.write(l)
		delete(p.pieces, from)
	}
	_ = p.sync() // the next write will say so again
}

func (p *printer) write(l *warrenv1.LogLine) {
	if p.look.Form != "" {
		to := p.out.Stream
		to.Writer = p.out.buffer
		p.failed = errors.Join(p.failed, output.RecordOf(to, p.look.Form, recordOf(l)))
		return
	}
	to := p.out
	if l.GetStream() == warrenv1.OutputStream_OUTPUT_STREAM_STDERR {
		to = p.err
	}
	// A bufio.Writer remembers its first error and returns it when it is flushed.
	if p.look.Times {
		to.buffer.WriteString(l.GetTime().AsTime().In(p.location()).Format(timeFormat) + " ")
	}
	if p.look.Names {
		name := l.GetTaskName()
		if l.GetNodeHostname() != "" {
			name += "@" + l.GetNodeHostname()
		}
		p.width = max(p.width, len(name))
		pad := strings.Repeat(" ", p.width-len(name))
		to.buffer.WriteString(to.Paint(output.Distinct(l.GetTaskId()), name+pad+" |") + " ")
	}
	to.buffer.Write(l.GetLine())
	to.buffer.WriteByte('\n')
}

func (p *printer) location() *time.Location { return p.streams.Now().Location() }

// notice tells the reader something about the output.
func (p *printer) notice(text string) {
	_ = p.sync()
	p.err.Printf("%s", p.err.Paint(output.Warning, "warrenctl: "+output.OneLine(text)))
}

// sync brings what was written before the reader.
func (p *printer) sync() error {
	return errors.Join(p.failed, p.out.buffer.Flush(), p.err.buffer.Flush())
}
