//go:build linux

package machine

import "runtime"

// launcher starts processes that end with this one, also when this one is killed. The kernel ties
// such a process to the thread that started it, so there is one thread that lives as long as the lab.
type launcher struct {
	work chan func()
	done chan struct{}
}

func newLauncher() *launcher {
	l := &launcher{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range l.work {
			f()
		}
	}()
	return l
}

// run runs f on the launcher's thread.
func (l *launcher) run(f func() error) error {
	result := make(chan error)
	l.work <- func() { result <- f() }
	return <-result
}

func (l *launcher) stop() {
	close(l.work)
	<-l.done
}
