package output

import (
	"bufio"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"google.golang.org/protobuf/proto"
)

const (
	gap = "   "
	// narrowest is how far a column is cut before the table is let run over the terminal's edge.
	narrowest = 12
	ellipsis  = "…"
)

// Table is a list of objects as people see it.
type Table struct {
	Columns []Column
	Rows    []Row
}

// Column is one fact about the objects.
type Column struct {
	// Title heads the column.
	Title string
	// Key is the column's name in templates.
	Key string
	// Wide columns are shown with -o wide only.
	Wide bool
	// Elastic columns are cut first where the terminal is too narrow, the last one first.
	Elastic bool
}

// Row is one object.
type Row struct {
	// ID and Name are what -q and -o name print.
	ID, Name string
	// Cells are the facts, in the order of the columns.
	Cells []Cell
	// Object is the object itself, for -o json and yaml.
	Object proto.Message
}

// Cell is one fact about one object.
type Cell struct {
	// Text is the whole of it, for templates and where nothing is cut.
	Text string
	// Short is shown instead, except with -o wide and --no-trunc. Empty: Text is.
	Short  string
	Colour Colour
}

// write draws the table. Everything is measured before anything is written, so that all rows align.
func (t *Table) write(s Stream, wide, whole bool) error {
	var columns []int
	for i, c := range t.Columns {
		if !c.Wide || wide {
			columns = append(columns, i)
		}
	}
	shown := func(c Cell) string {
		if c.Short != "" && !wide && !whole {
			return c.Short
		}
		return OneLine(c.Text)
	}
	widths := make([]int, len(columns))
	for n, i := range columns {
		widths[n] = text.StringWidth(t.Columns[i].Title)
		for _, r := range t.Rows {
			widths[n] = max(widths[n], cellWidth(shown(r.Cells[i])))
		}
	}
	if room := s.Width(); room > 0 && !wide && !whole {
		t.shrink(columns, widths, room)
	}

	w := bufio.NewWriter(s)
	line := func(cell func(column int) (string, Colour)) {
		pending := "" // blanks are written only before something, so that no line ends in them
		for n, i := range columns {
			content, colour := cell(i)
			width := cellWidth(content)
			if width > widths[n] {
				content, width = text.Snip(content, widths[n], ellipsis), widths[n]
			}
			if content != "" {
				w.WriteString(pending)
				w.WriteString(s.Paint(colour, content))
				pending = ""
			}
			pending += strings.Repeat(" ", widths[n]-width) + gap
		}
		w.WriteByte('\n')
	}
	line(func(i int) (string, Colour) { return t.Columns[i].Title, 0 })
	for _, r := range t.Rows {
		line(func(i int) (string, Colour) { return shown(r.Cells[i]), r.Cells[i].Colour })
	}
	return w.Flush()
}

// shrink takes from the elastic columns, last first, until the table fits.
func (t *Table) shrink(columns, widths []int, room int) {
	over := -room - len(gap)
	for _, w := range widths {
		over += w + len(gap)
	}
	for n := len(columns) - 1; n >= 0 && over > 0; n-- {
		if !t.Columns[columns[n]].Elastic {
			continue
		}
		least := max(narrowest, text.StringWidth(t.Columns[columns[n]].Title))
		if cut := min(over, widths[n]-least); cut > 0 {
			widths[n] -= cut
			over -= cut
		}
	}
}

// cellWidth is the number of columns that s takes.
func cellWidth(s string) int {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return text.StringWidth(s)
		}
	}
	return len(s) // by far the most common case, and the cheap one
}
