package rollout

import (
	"maps"
	"slices"
	"strings"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// images knows what the image of each revision of a service stands for. An image's name may mean something else tomorrow; all tasks
// of a revision run what the first of them has found it to mean.
type images struct {
	snapshot  state.Snapshot
	serviceID string
	revisions map[uint64]image
}

type image struct {
	stored, digest string
	// known: the digest is there, or will never be.
	known bool
}

// imagesOf looks what the tasks of a service have found its images to be.
func imagesOf(s state.Snapshot, serviceID string, slots []slot.Slot) *images {
	of := &images{snapshot: s, serviceID: serviceID, revisions: map[uint64]image{}}
	for i := range slots {
		for _, t := range slots[i].Live {
			of.learn(t)
		}
	}
	return of
}

func (of *images) learn(t *warrenv1.Task) {
	i := of.get(t.GetRevision())
	if i.known {
		return
	}
	if digest := t.GetStatus().GetImageDigest(); digest != "" {
		i.digest, i.known = digest, true
	} else if slot.Running(t) {
		i.known = true // an image without a digest
	}
	of.revisions[t.GetRevision()] = i
}

func (of *images) get(revision uint64) image {
	i, looked := of.revisions[revision]
	if !looked {
		r := of.snapshot.Revision(of.serviceID, revision)
		i.stored = r.GetImageDigest()
		i.digest = i.stored
		i.known = r == nil || i.digest != "" || strings.Contains(r.GetTask().GetContainer().GetImage(), "@")
		of.revisions[revision] = i
	}
	return i
}

// digest returns what a revision's tasks are to run, empty where that is not known.
func (of *images) digest(revision uint64) string { return of.get(revision).digest }

// known tells whether more than one task of a revision may be started without two of them finding different images.
func (of *images) known(revision uint64) bool { return of.get(revision).known }

// mixes tells whether a task runs another image than its revision stands for.
func (of *images) mixes(t *warrenv1.Task) bool {
	has := t.GetStatus().GetImageDigest()
	if has == "" {
		return false
	}
	digest := of.digest(t.GetRevision())
	return digest != "" && digest != has
}

// news lists the revisions that are to be written: their image is known now, or there is something to say of their failure or of how a rollout
// to them has ended.
func (of *images) news(failures map[uint64]string, outcomes map[uint64]*warrenv1.RolloutOutcome) []uint64 {
	found := map[uint64]bool{}
	for number, i := range of.revisions {
		if i.digest != i.stored {
			found[number] = true
		}
	}
	for number, why := range failures {
		if r := of.snapshot.Revision(of.serviceID, number); r != nil && r.GetFailure() != why {
			found[number] = true
		}
	}
	for number := range outcomes {
		if of.snapshot.Revision(of.serviceID, number) != nil {
			found[number] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
