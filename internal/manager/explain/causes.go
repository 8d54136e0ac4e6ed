package explain

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/cuemby/warren/internal/manager/digest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// rank is how near to the root a cause is likely to be. Those who follow from others come after them: a rollout is
// paused because a program crashes, and not the other way round.
type rank int

const (
	given      rank = iota // it is as somebody has ordered, or was settled already
	image                  // its image cannot be had
	memory                 // its program uses more memory than it may
	startup                // its node cannot start it
	crash                  // its program ends
	unhealthy              // it fails its probes
	silent                 // it does not listen
	lostNode               // its node is down
	cutOff                 // its node has no manager
	noRoom                 // no node fits
	held                   // the rollout is held up
	outside                // what is around it: ports, addresses
	inProgress             // nothing is wrong: it takes its time
	rested                 // nothing is wrong: it has ended, as it may
)

// cause is what ails one task, or more that it ails alike.
type cause struct {
	rank rank
	// key is the same for what ails tasks alike, although the words differ: each quotes its own output.
	key     string
	message string
	remedy  string
	// objects are what it holds of; none where it is about the explained object itself.
	objects []string
	noun    string // what the objects are: task
	at      int64  // when it arose, in nanoseconds: of those alike the latest is quoted
}

// maxObjects bounds how many objects a cause names.
const maxObjects = 10

// causes are grouped as they are added.
type causes []cause

func (all *causes) add(c cause) {
	for i := range *all {
		if other := &(*all)[i]; other.rank == c.rank && other.key == c.key && len(c.objects) > 0 {
			if c.at > other.at {
				other.message, other.remedy, other.at = c.message, c.remedy, c.at
			}
			other.objects = append(other.objects, c.objects...)
			return
		}
	}
	*all = append(*all, c)
}

// told returns the causes as they are told, the likeliest first; of equally likely ones that which ails most.
func (all causes) told() []*warrenv1.Cause {
	slices.SortStableFunc(all, func(a, b cause) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(len(b.objects), len(a.objects)), cmp.Compare(b.at, a.at))
	})
	said := make([]*warrenv1.Cause, 0, len(all))
	for _, c := range all {
		message := c.message
		switch n := len(c.objects); {
		case n == 1:
			message = c.objects[0] + ": " + message
		case n > 1:
			message = strconv.Itoa(n) + " " + c.noun + "s: " + message
		}
		said = append(said, &warrenv1.Cause{
			Message: digest.Shorten(message), Remedy: digest.Shorten(c.remedy),
			Objects: c.objects[:min(len(c.objects), maxObjects)], Count: uint32(len(c.objects)),
		})
	}
	return said
}
