package command

import (
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
)

// meterPause is the time between two looks at a meter.
const meterPause = 100 * time.Millisecond

// meter shows on a terminal how many bytes have gone by.
type meter struct {
	on    output.Stream
	verb  string
	total int64 // 0 where it is not known
	count int64
	shown time.Time
}

func newMeter(on output.Stream, verb string) *meter { return &meter{on: on, verb: verb} }

// Write implements io.Writer.
func (m *meter) Write(b []byte) (int, error) {
	m.count += int64(len(b))
	if m.on.Terminal && time.Since(m.shown) >= meterPause {
		m.shown = time.Now()
		line := view.Memory(m.count)
		if m.total > 0 {
			line += " of " + view.Memory(m.total)
		}
		fmt.Fprintf(m.on, "\r\x1b[K%s %s", line, m.verb)
	}
	return len(b), nil
}

// end wipes the meter away.
func (m *meter) end() {
	if m.on.Terminal && !m.shown.IsZero() {
		fmt.Fprint(m.on, "\r\x1b[K")
	}
}
