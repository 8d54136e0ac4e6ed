package dispatch

import (
	"sync"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	defaultInterval = time.Second
	// minSilence is the shortest silence that counts, however short the interval: less than that a
	// busy machine may need to get a message out.
	minSilence = 500 * time.Millisecond
	// crowd is the number of sessions up to which the interval is as configured; beyond it grows with
	// the sessions, so that all together never send more heartbeats than a crowd does.
	crowd = 200
)

// heartbeatInterval is how often each of so many agents should be heard.
func heartbeatInterval(c *warrenv1.Cluster, sessions int) time.Duration {
	interval := defaultInterval
	if d := c.GetSpec().GetHeartbeatInterval(); d.AsDuration() > 0 {
		interval = d.AsDuration()
	}
	return interval * time.Duration(max(crowd, sessions)) / crowd
}

// silenceLimit is how long an agent that should be heard every interval may be silent: two heartbeats
// may be lost or late, and by default it is over before the node's grace is.
func silenceLimit(interval time.Duration) time.Duration {
	return max(interval*5/2, minSilence)
}

// pulse watches that something is heard of an agent often enough. A beat costs no timer: the one timer
// looks, when it fires, how long ago the last beat was, and fires again when that one will be too old.
type pulse struct {
	mu       sync.Mutex
	last     time.Time // of the last beat
	interval time.Duration
	due      time.Time // when the timer was to fire
	timer    *time.Timer
	silent   func(last time.Time)
}

// start begins the watch; silent is called once, if and when the agent has been silent for too long.
func (p *pulse) start(interval time.Duration, silent func(last time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.interval, p.silent = time.Now(), interval, silent
	p.due = p.last.Add(silenceLimit(interval))
	p.timer = time.AfterFunc(time.Until(p.due), p.look)
}

// beat notes that the agent was heard.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

// pace notes what interval the agent was told.
func (p *pulse) pace(interval time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interval = interval
}

// stop ends the watch.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
	p.silent = nil
}

func (p *pulse) look() {
	if silent, last := p.examine(time.Now()); silent != nil {
		silent(last)
	}
}

// examine returns what is to be called where the agent has been silent for too long, and else sets the
// timer anew.
func (p *pulse) examine(now time.Time) (silent func(time.Time), last time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent == nil {
		return nil, time.Time{}
	}
	limit := silenceLimit(p.interval)
	if now.Sub(p.due) > p.interval/2 {
		// The timer is late: this manager itself stood still, and has not read what came meanwhile.
		p.last = now
	}
	if now.Sub(p.last) >= limit {
		silent, p.silent = p.silent, nil
		return silent, p.last
	}
	p.due = p.last.Add(limit)
	p.timer.Reset(p.due.Sub(now))
	return nil, time.Time{}
}
