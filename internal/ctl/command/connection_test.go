package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/traceparent"
)

func TestACommandIsPartOfTheTraceOfItsCallerOrOfItsOwn(t *testing.T) {
	const around = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	for _, c := range []struct {
		variable string
		flag     bool
		want     string // of the trace; empty for none
		begins   bool
		recorded bool
	}{
		{variable: ""},
		{variable: "rubbish"},
		{variable: around, want: traceparent.ID(around)},
		{variable: around, flag: true, want: traceparent.ID(around), recorded: true},
		{variable: "", flag: true, begins: true, recorded: true},
		{variable: "rubbish", flag: true, begins: true, recorded: true},
	} {
		t.Setenv(traceparent.Variable, c.variable)
		var said bytes.Buffer
		s := &Session{Connection: Connection{Trace: c.flag}, Streams: &output.Streams{Err: output.Stream{Writer: &said}}}
		got := s.trace()
		if got == "" && (c.want != "" || c.begins) || got != "" && (!traceparent.Valid(got) || !c.begins && traceparent.ID(got) != c.want) {
			t.Errorf("%+v: %q", c, got)
		}
		if strings.HasSuffix(got, "-01") != c.recorded {
			t.Errorf("%+v: %q", c, got)
		}
		if c.flag && said.String() != "trace "+traceparent.ID(got)+"\n" || !c.flag && said.Len() > 0 {
			t.Errorf("%+v: it said %q", c, &said)
		}
	}
}
