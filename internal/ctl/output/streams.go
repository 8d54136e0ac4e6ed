package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// Streams are the ends of the program and what is known about them.
type Streams struct {
	In  io.Reader
	Out Stream
	Err Stream
	// Now is the time that ages are counted from.
	Now func() time.Time
}

// Stream is one of the program's outputs.
type Stream struct {
	io.Writer
	// Terminal tells that a person sees it and that it can be redrawn.
	Terminal bool
	// Colour tells that it may be coloured.
	Colour bool
	// width asks the terminal; nil where there is none.
	width func() int
	// height asks it for its lines.
	height func() int
}

// Standard returns the streams of the process.
func Standard() *Streams {
	return &Streams{In: os.Stdin, Out: fromFile(os.Stdout), Err: fromFile(os.Stderr), Now: time.Now}
}

// Printf writes a line of text; what cannot be written is nobody's to handle.
func (s Stream) Printf(format string, args ...any) { fmt.Fprintf(s.Writer, format+"\n", args...) }

// Redraw puts a line of text in the place of the one that was drawn before, on a terminal; elsewhere nothing is
// drawn. An empty line wipes it away.
func (s Stream) Redraw(line string) {
	if s.Terminal {
		fmt.Fprint(s.Writer, "\r\x1b[K"+line)
	}
}

// Width returns the terminal's columns, 0 where there is no terminal or it does not tell.
func (s Stream) Width() int {
	if s.width == nil {
		return 0
	}
	return s.width()
}

// Height returns the terminal's lines, 0 where there is no terminal or it does not tell.
func (s Stream) Height() int {
	if s.height == nil {
		return 0
	}
	return s.height()
}

func fromFile(f *os.File) Stream {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) || !enableSequences(f) || os.Getenv("TERM") == "dumb" {
		return Stream{Writer: f}
	}
	return Stream{
		Writer:   f,
		Terminal: true,
		Colour:   os.Getenv("NO_COLOR") == "",
		width: func() int {
			columns, _, err := term.GetSize(fd)
			if err != nil {
				return 0
			}
			return columns
		},
		height: func() int {
			_, lines, err := term.GetSize(fd)
			if err != nil {
				return 0
			}
			return lines
		},
	}
}

// OneLine makes text from elsewhere fit for a cell or a status line: line breaks become blanks and
// control characters, which could rewrite the terminal, go.
func OneLine(s string) string {
	clean := true
	for _, r := range s {
		if !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return strings.TrimSpace(s)
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsMark(r) || r == ' ' }), " ")
}

// Snip cuts a line that is to take no more than so many columns, escape sequences not counted; it is whole where the
// columns are not known.
func Snip(line string, columns int) string {
	if columns <= 0 || text.StringWidthWithoutEscSequences(line) <= columns {
		return line
	}
	return text.Snip(line, columns, ellipsis)
}
