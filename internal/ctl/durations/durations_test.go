package durations

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"pgregory.net/rapid"
)

func TestDurationsAreReadAsUsersWriteThem(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "5s": 5 * time.Second, "2m30s": 150 * time.Second, "1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond,
		"1d": 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1y": 365 * 24 * time.Hour,
	} {
		if got, err := Parse(text); got != want || err != nil {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestWhatIsNoDurationIsQuotedWithTheForm(t *testing.T) {
	const form = ": write it with a unit, as 5s, 2m30s, 1h or 30d"
	for text, want := range map[string]string{
		"":          `"" is no duration` + form,
		"5":         `"5" is no duration` + form,
		"abc":       `"abc" is no duration` + form,
		"5 s":       `"5 s" is no duration` + form,
		"1.5d":      `"1.5d" is no duration` + form,
		"d":         `"d" is no duration` + form,
		"1d12h":     `"1d12h" is no duration` + form,
		"-3s":       `"-3s" is no duration: none is below zero; write it with a unit, as 5s, 2m30s, 1h or 30d`,
		"-5":        `"-5" is no duration: none is below zero`,
		"9999999h":  `"9999999h" is too long for a duration: the longest is 292y`,
		"400y":      `"400y" is too long`,
		"99999999d": `"99999999d" is too long`,
	} {
		if got, err := Parse(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
}

func TestWhatGoPrintsIsReadAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(0).Draw(t, "d"))
		if got, err := Parse(d.String()); got != d || err != nil {
			t.Fatalf("%v is read as %v, %v", d, got, err)
		}
	})
}

func TestAnyTextIsADurationOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`-?[0-9]{0,20}(\.[0-9]*)?[a-zµ]{0,2}`)).Draw(t, "text")
		if d, err := Parse(text); err == nil && d < 0 {
			t.Fatalf("%q is %v", text, d)
		}
	})
}

func TestAFlagThatIsNoDurationIsNamed(t *testing.T) {
	var flags struct {
		Delay   *time.Duration
		Monitor time.Duration `default:"1s" short:"m"`
		Name    string
	}
	parser, err := kong.New(&flags, Flags(), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"--delay 5":         `--delay: "5" is no duration: write it with a unit`,
		"--delay=5":         `--delay: "5" is no duration: write it with a unit`,
		"--delay -3s":       `--delay: "-3s" is no duration: none is below zero`,
		"--delay=-3s":       `--delay: "-3s" is no duration: none is below zero`,
		"--delay -.5s":      `--delay: "-.5s" is no duration: none is below zero`,
		"--delay=":          `--delay: "" is no duration`,
		"--delay":           "--delay: a duration is missing: write it with a unit",
		"--delay --name x":  "--delay: a duration is missing",
		"--delay -m 5s":     "--delay: a duration is missing",
		"-m never":          `--monitor: "never" is no duration`,
		"--monitor=-1s":     `--monitor: "-1s" is no duration`,
		"--name x --delay ": "--delay: a duration is missing",
	} {
		if _, err := parser.Parse(strings.Fields(line)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	if _, err := parser.Parse([]string{"--delay", "2m30s"}); err != nil || *flags.Delay != 150*time.Second || flags.Monitor != time.Second {
		t.Errorf("%v %v: %v", *flags.Delay, flags.Monitor, err)
	}
}
