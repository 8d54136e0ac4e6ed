package supervisor

import (
	"testing"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestAnImageIsPinnedOnceItsDigestIsKnown(t *testing.T) {
	for _, c := range []struct{ image, digest, want string }{
		{"web:1", "", "web:1"},
		{"web:1", "sha256:aa", "web:1@sha256:aa"},
		{"web@sha256:aa", "sha256:aa", "web@sha256:aa"},
	} {
		a := &warrenv1.Assignment{
			Spec: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: c.image}}, ImageDigest: c.digest,
		}
		if got := pinned(a); got != c.want {
			t.Errorf("%s, known to be %q: pulls %s, want %s", c.image, c.digest, got, c.want)
		}
	}
}
