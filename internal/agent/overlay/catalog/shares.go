package catalog

import (
	"net/netip"
	"slices"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// rotation are a service's tasks that new connections may go to, in no order, by what each part of them is to get: one part
// where they go to all alike. It is by revision that they are shared out. The share of a revision without such a task goes
// to the others that have one; one with a share of 0 gets none unless no other has any task, and one that is not named not
// before those.
func (c *Catalog) rotation(s *service) []rotated {
	var all []*task
	for _, t := range s.tasks {
		if c.holds(t) && t.open() {
			all = append(all, t)
		}
	}
	if len(s.front.GetShares()) == 0 {
		return []rotated{{1, all}}
	}
	var parts []rotated
	var spare []*task
	for _, share := range s.front.GetShares() {
		var of []*task
		for _, t := range all {
			if t.revision() == share.GetRevision() {
				of = append(of, t)
			}
		}
		switch {
		case len(of) == 0:
		case share.GetPercent() == 0:
			spare = append(spare, of...)
		default:
			parts = append(parts, rotated{min(share.GetPercent(), 100), of})
		}
	}
	switch {
	case len(parts) > 0:
		return parts
	case len(spare) > 0:
		return []rotated{{1, spare}}
	}
	return []rotated{{1, all}}
}

// rotated are tasks that get their weight of new connections between them.
type rotated struct {
	weight uint32
	tasks  []*task
}

func (r rotated) addrs() []netip.Addr {
	addrs := make([]netip.Addr, 0, len(r.tasks))
	for _, t := range r.tasks {
		addrs = append(addrs, t.addr)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// share has the rules share a service's connections out.
func (c *Catalog) share(s *service, balanced *traffic.Service) {
	parts := c.rotation(s)
	if len(parts) == 1 {
		balanced.Endpoints = parts[0].addrs()
		return
	}
	for _, part := range parts {
		balanced.Shares = append(balanced.Shares, traffic.Share{Weight: part.weight, Endpoints: part.addrs()})
	}
}

// revision is the one that a task is of. Its own node knows it first.
func (t *task) revision() uint64 {
	if t.here != nil && t.here.revision > 0 {
		return t.here.revision
	}
	return t.told.GetRevision()
}
