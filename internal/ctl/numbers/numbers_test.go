package numbers

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestWhatIsNoNumberIsQuoted(t *testing.T) {
	var flags struct {
		Replicas *uint32
		To       uint64
		Ratio    *float64
	}
	parser, err := kong.New(&flags, Flags(), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"--replicas x":           `--replicas: "x" is not a whole number of 0 or more`,
		"--replicas=-1":          `--replicas: "-1" is not a whole number of 0 or more`,
		"--replicas -1":          `--replicas: "-1" is not a whole number of 0 or more`,
		"--replicas 1.5":         `--replicas: "1.5" is not a whole number`,
		"--replicas 99999999999": `--replicas: "99999999999" is too large: the largest is 4294967295`,
		"--replicas":             "--replicas: a number is missing",
		"--to --replicas 3":      "--to: a number is missing",
		"--ratio half":           `--ratio: "half" is not a number such as 0.25`,
	} {
		if _, err := parser.Parse(strings.Fields(line)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	if _, err := parser.Parse(strings.Fields("--replicas 3 --to 7 --ratio 0.5")); err != nil || *flags.Replicas != 3 || flags.To != 7 || *flags.Ratio != 0.5 {
		t.Errorf("%v %v %v: %v", flags.Replicas, flags.To, flags.Ratio, err)
	}
}
