package link

import (
	"errors"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// removeGroup is the group of links that are about to be removed together. Nobody else's links are in it.
const removeGroup = 0x5761726e

// removals removes veths, and those that gather meanwhile together. The kernel waits some times for all
// processors when it removes a link (27 ms seen), holds up all other changes to links as long, and needs no
// longer for many at once (5 ms each of twenty).
type removals struct {
	mu      sync.Mutex
	waiting *removal // nil if nothing waits
	busy    bool
}

// removal is one batch.
type removal struct {
	links []netlink.Link
	done  chan struct{}
	err   error // of which link is not told: valid when done
}

// remove returns when the link is gone.
func (w *Wires) remove(l netlink.Link) error {
	r := &w.removals
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = &removal{done: make(chan struct{})}
	}
	mine := r.waiting
	mine.links = append(mine.links, l)
	if r.busy {
		// Who is busy takes this batch next.
		r.mu.Unlock()
		<-mine.done
		return mine.err
	}
	r.busy = true
	for r.waiting != nil {
		batch := r.waiting
		r.waiting = nil
		r.mu.Unlock()
		batch.err = w.removeTogether(batch.links)
		close(batch.done)
		r.mu.Lock()
	}
	r.busy = false
	r.mu.Unlock()
	return mine.err
}

func (w *Wires) removeTogether(links []netlink.Link) error {
	if len(links) > 1 && w.removeAtOnce(links) == nil {
		return nil
	}
	var failed []error
	for _, l := range links {
		if err := w.remover.LinkDel(l); err != nil && !notFound(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (w *Wires) removeAtOnce(links []netlink.Link) error {
	for _, l := range links {
		if err := w.remover.LinkSetGroup(l, removeGroup); err != nil && !notFound(err) {
			return err
		}
	}
	request := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(removeGroup)))
	return w.within(w.host, func() error {
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}
