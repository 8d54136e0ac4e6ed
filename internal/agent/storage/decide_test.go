package storage

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/runtime"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// unusedFor is an image of one piece of so many bytes, which no task has used for so long.
func unusedFor(digest string, bytes int64, unused time.Duration) image {
	return image{StoredImage: runtime.StoredImage{
		Digest: digest, Names: []string{digest + ":1"}, Pulled: true, UnusedSince: now.Add(-unused), Pieces: map[string]int64{digest: bytes},
	}}
}

func digests(list []runtime.StoredImage) (all []string) {
	for _, i := range list {
		all = append(all, i.Digest)
	}
	return all
}

func TestImagesGoAfterTheRetention(t *testing.T) {
	t.Parallel()
	roomy := disk{total: 100, free: 50}
	used := unusedFor("used", 1, 48*time.Hour)
	used.used = true
	imported := unusedFor("imported", 1, 48*time.Hour)
	imported.Pulled = false
	fresh := unusedFor("fresh", 1, 0)
	fresh.UnusedSince = time.Time{}
	inUse := fresh
	inUse.Digest, inUse.used = "in use", true
	images := []image{used, imported, fresh, inUse, unusedFor("yesterday", 1, 24*time.Hour), unusedFor("today", 1, 23*time.Hour), unusedFor("tomorrow", 1, -time.Hour)}
	what := decide(images, roomy, 24*time.Hour, now)
	if got := digests(what.remove); !slices.Equal(got, []string{"yesterday"}) {
		t.Errorf("%v go", got)
	}
	if got := digests(what.begin); !slices.Equal(got, []string{"fresh", "tomorrow"}) {
		t.Errorf("%v begin to be unused", got)
	}
	if got := digests(what.end); !slices.Equal(got, []string{"used"}) {
		t.Errorf("%v are used again", got)
	}
}

func TestWithoutARetentionAllImagesStay(t *testing.T) {
	t.Parallel()
	what := decide([]image{unusedFor("a", 1, 1000*time.Hour)}, disk{total: 100, free: 1}, 0, now)
	if len(what.remove)+len(what.begin)+len(what.end) != 0 {
		t.Errorf("%+v", what)
	}
}

func TestACrowdedDiskIsRelievedOfTheLongestUnused(t *testing.T) {
	t.Parallel()
	kept := unusedFor("kept", 50, 5*time.Hour)
	kept.kept = true
	used := unusedFor("used", 50, 6*time.Hour)
	used.used = true
	// b shares all but 2 bytes with an image in use.
	b := unusedFor("b", 2, 3*time.Hour)
	b.Pieces["used"] = 50
	images := []image{unusedFor("a", 5, time.Hour), b, unusedFor("c", 4, 2*time.Hour), kept, used}
	for _, test := range []struct {
		free uint64
		want []string
	}{
		{free: 15, want: nil}, // exactly at the mark
		{free: 14, want: []string{"b", "c"}},
		{free: 13, want: []string{"b", "c", "a"}},
		{free: 1, want: []string{"b", "c", "a"}},
	} {
		what := decide(images, disk{total: 100, free: test.free}, 24*time.Hour, now)
		if got := digests(what.remove); !slices.Equal(got, test.want) {
			t.Errorf("with %d%% free %v go, want %v", test.free, got, test.want)
		}
	}
	if what := decide(images, disk{}, 24*time.Hour, now); len(what.remove) > 0 {
		t.Errorf("of a disk of unknown size %v go", digests(what.remove))
	}
}

func TestWhatIsDecidedKeepsTheLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var images []image
		for n := range rapid.IntRange(0, 8).Draw(t, "images") {
			i := unusedFor(strconv.Itoa(n), int64(rapid.IntRange(0, 30).Draw(t, "bytes")), time.Duration(rapid.IntRange(-2, 50).Draw(t, "hours"))*time.Hour)
			i.Pieces["shared"] = 3
			i.used, i.kept, i.Pulled = rapid.Bool().Draw(t, "used"), rapid.Bool().Draw(t, "kept"), rapid.Bool().Draw(t, "pulled")
			if rapid.Bool().Draw(t, "unmarked") {
				i.UnusedSince = time.Time{}
			}
			images = append(images, i)
		}
		d := disk{total: 100, free: uint64(rapid.IntRange(0, 100).Draw(t, "free"))}
		what := decide(images, d, 24*time.Hour, now)
		seen := map[string]bool{}
		for _, r := range what.remove {
			at := slices.IndexFunc(images, func(i image) bool { return i.Digest == r.Digest })
			i := images[at]
			if seen[r.Digest] {
				t.Fatalf("%s goes twice", r.Digest)
			}
			seen[r.Digest] = true
			aged := !i.UnusedSince.IsZero() && now.Sub(i.UnusedSince) >= 24*time.Hour
			if i.used || !i.Pulled || !aged && (i.kept || !d.fuller(crowded)) {
				t.Fatalf("%+v goes", i)
			}
		}
		for _, i := range images {
			if i.Pulled && !i.used && !i.UnusedSince.IsZero() && now.Sub(i.UnusedSince) >= 24*time.Hour && !seen[i.Digest] {
				t.Fatalf("%+v stays", i)
			}
		}
	})
}
