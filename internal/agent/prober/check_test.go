package prober

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func tcpOn(port uint32) *warrenv1.HealthCheck {
	return &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Tcp{Tcp: &warrenv1.TcpProbe{Port: port}}}
}

func TestTheTemplateTakesPrecedenceOverTheImage(t *testing.T) {
	image := tcpOn(80)
	image.Interval, image.Timeout, image.Retries = durationpb.New(1500*time.Millisecond), durationpb.New(7*time.Second), 9
	merged := tcpOn(80)
	merged.Interval, merged.Timeout, merged.Retries = durationpb.New(time.Minute), durationpb.New(7*time.Second), 9
	merged.OnFailure = warrenv1.UnhealthyAction_UNHEALTHY_ACTION_WITHDRAW
	overriding := &warrenv1.HealthCheck{Interval: durationpb.New(time.Minute), OnFailure: merged.OnFailure}
	for name, c := range map[string]struct{ template, image, want *warrenv1.HealthCheck }{
		"neither":                      {nil, nil, nil},
		"the image's alone":            {nil, image, image},
		"the template's alone":         {tcpOn(1), nil, tcpOn(1)},
		"both name a probe":            {tcpOn(1), image, tcpOn(1)},
		"the template sets some of it": {overriding, image, merged},
		"nothing to set it of":         {overriding, nil, nil},
		"disabled":                     {&warrenv1.HealthCheck{Disabled: true}, image, nil},
	} {
		kept := proto.CloneOf(c.image)
		if got := Merge(c.template, c.image); !proto.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if !proto.Equal(kept, c.image) {
			t.Errorf("%s: the image's check was changed", name)
		}
	}
}

func TestWhatACheckMeansWhereItSaysNothing(t *testing.T) {
	c, err := Compile(tcpOn(80))
	if err != nil {
		t.Fatal(err)
	}
	want := Check{Interval: 30 * time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 3, SuccessThreshold: 1, Restarts: true}
	c.probe = nil
	if *c != want {
		t.Errorf("%+v", c)
	}
	short := tcpOn(80)
	short.Interval = durationpb.New(2 * time.Second)
	if c, _ := Compile(short); c.StartInterval != 2*time.Second {
		t.Errorf("a start interval of %v beyond the interval", c.StartInterval)
	}
}

func TestBadChecksNameTheField(t *testing.T) {
	page := func(h *warrenv1.HttpProbe) *warrenv1.HealthCheck {
		return &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Http{Http: h}}
	}
	for want, check := range map[string]*warrenv1.HealthCheck{
		"health: it names no probe":        {},
		"health.http.path: ":               page(&warrenv1.HttpProbe{Path: "/%zz"}),
		"health.http.headers: ":            page(&warrenv1.HttpProbe{Headers: []string{"nonsense"}}),
		`health.http.status: "300-200"`:    page(&warrenv1.HttpProbe{Status: "300-200"}),
		`health.http.status: "x"`:          page(&warrenv1.HttpProbe{Status: "200,x"}),
		"health.http.body: ":               page(&warrenv1.HttpProbe{Body: "("}),
		"health.exec.command: it is empty": {Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{}}},
	} {
		if _, err := Compile(check); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestWordsAreShortWholeAndHarmless(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := string(rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(r, "bytes"))
		if rapid.Bool().Draw(r, "text") {
			text = rapid.StringN(0, 1500, 4000).Draw(r, "string")
		}
		for _, got := range []string{clip(text), cutFront(clean(text), outputLimit)} {
			if len(got) > outputLimit || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\x00\r\x7f") {
				r.Fatalf("%q", got)
			}
		}
	})
}
