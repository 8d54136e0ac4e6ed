package audit

import (
	"sync"
	"time"
)

// mostPerSecond is how many refusals of strangers are written down each second. Without a bound anybody
// who reaches the port could fill the disk with them.
const mostPerSecond = 20

// crowds counts the refusals of callers whom nobody has admitted by name.
type crowds struct {
	mu        sync.Mutex
	second    time.Time
	written   int
	unwritten int
}

// admit tells whether one more refusal may be written, and how many were not since the last that was.
func (c *crowds) admit(now time.Time) (room bool, unwritten int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.second) >= time.Second {
		c.second, c.written = now, 0
	}
	if c.written == mostPerSecond {
		c.unwritten++
		return false, 0
	}
	c.written++
	unwritten, c.unwritten = c.unwritten, 0
	return true, unwritten
}
