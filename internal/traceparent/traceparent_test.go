package traceparent_test

import (
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/traceparent"
)

const example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestAnythingElseThanATraceparentIsNotValid(t *testing.T) {
	for parent, valid := range map[string]bool{
		example: true,
		"":      false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x": false, // a later version's, perhaps
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":   false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":   false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":   false,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01":   false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n":  false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736x00f067aa0ba902b7-01":   false,
	} {
		if traceparent.Valid(parent) != valid {
			t.Errorf("%q: want %v", parent, valid)
		}
	}
}

func TestAContextCarriesIt(t *testing.T) {
	if got := traceparent.From(t.Context()); got != "" {
		t.Errorf("out of nothing: %q", got)
	}
	if got := traceparent.From(traceparent.With(t.Context(), example)); got != example {
		t.Errorf("got %q", got)
	}
	if traceparent.With(t.Context(), "") != t.Context() {
		t.Error("nothing costs something")
	}
}

func TestANewTraceIsLikeNoOther(t *testing.T) {
	one, other := traceparent.New(), traceparent.New()
	if !traceparent.Valid(one) || !traceparent.Valid(other) || traceparent.ID(one) == traceparent.ID(other) {
		t.Errorf("got %q and %q", one, other)
	}
	if silent := strings.TrimSuffix(one, "01") + "00"; traceparent.Recorded(silent) != one || traceparent.ID(silent) != traceparent.ID(one) {
		t.Errorf("%q is to be recorded: %q", silent, traceparent.Recorded(silent))
	}
}

func TestAThingHasOneSpanWithinATraceWhoeverNamesIt(t *testing.T) {
	one, other := traceparent.Below(example, "task a"), traceparent.Below(example, "task b")
	if !traceparent.Valid(one) || one == other || one != traceparent.Below(example, "task a") {
		t.Errorf("got %q and %q", one, other)
	}
	if one[:36] != example[:36] || one[52:] != example[52:] {
		t.Errorf("%q is not of the trace %q", one, example)
	}
	if got := traceparent.Below("rubbish", "task a"); got != "" {
		t.Errorf("below nothing: %q", got)
	}
}
