package storage

import (
	"cmp"
	"slices"
	"time"

	"github.com/cuemby/warren/internal/agent/runtime"
)

const (
	// crowded is the part of the disk in use from which on images go before their time, and relieved that down to
	// which they do.
	crowded  = 0.85
	relieved = 0.80
)

// image is an image beside what is known of its use.
type image struct {
	runtime.StoredImage
	// used says that a task or a container needs it.
	used bool
	// kept says that tasks which have ended and are remembered were made from it: a rollback may want it back.
	kept bool
}

// disk is the file system that holds the images; a total of 0 is an unknown one.
type disk struct{ total, free uint64 }

func (d disk) fuller(than float64) bool {
	return float64(d.total-min(d.free, d.total)) > than*float64(d.total)
}

// decision is what to do with images.
type decision struct {
	// begin are those that are unused from now on, end those that are used again.
	begin, end []runtime.StoredImage
	remove     []runtime.StoredImage
}

// decide tells what to do with images now: those that an agent has brought here go once they have been unused for the
// retention. On a crowded disk they go before that, those unused for the longest first, until it is relieved; not those
// that are kept. A retention of 0 lets all stay. Images that somebody else has brought are nobody's to remove.
func decide(images []image, d disk, retention time.Duration, now time.Time) (what decision) {
	if retention <= 0 {
		return what
	}
	left := newPieces(images)
	var waiting []image // whose time has not come
	for _, i := range images {
		switch {
		case i.used && !i.UnusedSince.IsZero():
			what.end = append(what.end, i.StoredImage)
		case i.used || !i.Pulled:
		case i.UnusedSince.IsZero() || i.UnusedSince.After(now): // by a clock that was set since
			what.begin = append(what.begin, i.StoredImage)
			i.UnusedSince = now
			waiting = append(waiting, i)
		case now.Sub(i.UnusedSince) >= retention:
			what.remove = append(what.remove, i.StoredImage)
			d.free += left.drop(i.Pieces)
		default:
			waiting = append(waiting, i)
		}
	}
	if !d.fuller(crowded) {
		return what
	}
	slices.SortStableFunc(waiting, func(a, b image) int {
		return cmp.Or(a.UnusedSince.Compare(b.UnusedSince), cmp.Compare(a.Digest, b.Digest))
	})
	for _, i := range waiting {
		if !d.fuller(relieved) {
			break
		}
		if !i.kept {
			what.remove = append(what.remove, i.StoredImage)
			d.free += left.drop(i.Pieces)
		}
	}
	return what
}

// unneeded are the images that no task needs, whoever brought them and whatever is remembered.
func unneeded(images []image) (list []runtime.StoredImage) {
	for _, i := range images {
		if !i.used {
			list = append(list, i.StoredImage)
		}
	}
	return list
}

// pieces counts how many images have each piece, to tell what the removal of one frees.
type pieces map[string]int

func newPieces(images []image) pieces {
	p := pieces{}
	for _, i := range images {
		for name := range i.Pieces {
			p[name]++
		}
	}
	return p
}

// drop takes an image out, and returns the bytes of what no other has.
func (p pieces) drop(of map[string]int64) (freed uint64) {
	for name, size := range of {
		if p[name]--; p[name] == 0 {
			freed += uint64(size)
		}
	}
	return freed
}
