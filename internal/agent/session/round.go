package session

import "math/rand/v2"

// round is one try at every manager there is, in an order of chance, so that agents spread. The one that
// worked last comes first, and one that was just lost comes last.
type round struct {
	last, lost string
	done       map[string]bool
}

func newRound(last, lost string) *round {
	return &round{last: last, lost: lost, done: map[string]bool{}}
}

// tried tells whether any manager was tried in this round.
func (r *round) tried() bool { return len(r.done) > 0 }

// next picks a manager of these that was not tried yet; false where there is none.
func (r *round) next(addrs []string) (string, bool) {
	picked, seen := "", 0
	for _, addr := range addrs {
		if r.done[addr] || addr == r.lost {
			continue
		}
		if addr == r.last {
			picked = addr
			break
		}
		// Each of n is picked with a chance of 1/n.
		if seen++; rand.N(seen) == 0 {
			picked = addr
		}
	}
	if picked == "" && r.lost != "" && !r.done[r.lost] {
		picked = r.lost
	}
	if picked == "" {
		return "", false
	}
	r.done[picked] = true
	return picked, true
}
