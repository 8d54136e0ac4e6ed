package digest_test

import (
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/manager/digest"
)

func TestDigestsAreShortenedWhereverTheyStand(t *testing.T) {
	long := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for text, want := range map[string]string{
		"":      "",
		"web:2": "web:2",
		long:    "sha256:0123456789ab",
		"registry:5000/web:2@" + long + ", 3 replicas": "registry:5000/web:2@sha256:0123456789ab, 3 replicas",
		"from " + long + " to " + long:                 "from sha256:0123456789ab to sha256:0123456789ab",
		"sha256:found":                                 "sha256:found",
		long + "00":                                    long + "00", // which is none
	} {
		if got := digest.Shorten(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
