package daemonflags_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags"
)

// upper is a value with a mind of its own.
type upper string

func (u *upper) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("it must not be empty")
	}
	*u = upper(strings.ToUpper(string(text)))
	return nil
}

type flags struct {
	Config daemonflags.ConfigFile `default:"/nowhere.yaml" placeholder:"FILE" help:"The file."`

	DataDir string            `type:"path" default:"/data" placeholder:"DIR" help:"Where data is."`
	Kind    string            `default:"a" enum:"a,b" help:"One of ${enum}."`
	Number  int               `default:"${seven}" placeholder:"N" help:"How many."`
	Share   float64           `name:"part" default:"0" help:"How much."`
	Each    []string          `placeholder:"WORD" help:"Words."`
	Label   map[string]string `help:"Labels."`
	Loud    upper             `default:"hush" help:"A word."`
	Secret  string            `env:"-" help:"Not from the environment."`

	daemonflags.Logging
	Version bool `env:"-" help:"Print the version."`
}

func (f *flags) Validate() error {
	if f.Number > 100 {
		return fmt.Errorf("--number %d: it must be at most 100", f.Number)
	}
	return nil
}

func parse(args ...string) (flags, string, error) {
	var f flags
	var out strings.Builder
	p := daemonflags.Program{Name: "program", Description: "A program.", Env: "PROGRAM", Vars: map[string]string{"seven": "7"}}
	err := p.Parse(&f, args, &out)
	return f, out.String(), err
}

func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsStandWhereNothingIsSaid(t *testing.T) {
	got, _, err := parse()
	want := flags{Config: "/nowhere.yaml", DataDir: "/data", Kind: "a", Number: 7, Loud: "HUSH", Logging: daemonflags.Logging{LogLevel: "info", LogFormat: "auto"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTheCommandLineWinsOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	t.Setenv("PROGRAM_NUMBER", "2")
	t.Setenv("PROGRAM_KIND", "b")
	t.Setenv("PROGRAM_EACH", "x,y")
	t.Setenv("PROGRAM_LABEL", "a=1;b=2,3")
	t.Setenv("PROGRAM_SECRET", "heard")
	path := written(t, "number: 3\nkind: a\npart: 0.25\nloud: file\neach: [z]\ndata-dir: below\nsecret:\n")
	got, _, err := parse("--config="+path, "--number", "1", "--version")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Abs("below")
	if err != nil {
		t.Fatal(err)
	}
	want := flags{
		Config: daemonflags.ConfigFile(path), DataDir: below, Kind: "b", Number: 1, Share: 0.25, Each: []string{"x", "y"},
		Label: map[string]string{"a": "1", "b": "2,3"}, Loud: "FILE", Logging: daemonflags.Logging{LogLevel: "info", LogFormat: "auto"}, Version: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestListsAndMapsGrowOnTheCommandLineAndAreTakenWholeFromTheFile(t *testing.T) {
	got, _, err := parse("--each", "a,b", "--each", "c", "--label", "k=v", "--label", "l=w=x")
	if err != nil || !reflect.DeepEqual(got.Each, []string{"a", "b", "c"}) || !reflect.DeepEqual(got.Label, map[string]string{"k": "v", "l": "w=x"}) {
		t.Errorf("got %v and %v, %v", got.Each, got.Label, err)
	}
	got, _, err = parse("--config", written(t, "each: ['a,b', c]\nlabel: {k: v, n: 1}\n"))
	if err != nil || !reflect.DeepEqual(got.Each, []string{"a,b", "c"}) || !reflect.DeepEqual(got.Label, map[string]string{"k": "v", "n": "1"}) {
		t.Errorf("got %v and %v, %v", got.Each, got.Label, err)
	}
}

func TestMistakesAreNamedWithWhereTheyWereMade(t *testing.T) {
	t.Setenv("PROGRAM_LOG_LEVEL", "loud")
	for want, args := range map[string][]string{
		`unknown flag: --sockt`:            {"--sockt", "x"},
		`unexpected argument word`:         {"--number", "1", "word"},
		`"--number"`:                       {"--number", "many"},
		`needs an argument`:                {"--number"},
		`not a number`:                     {"--part", "half"},
		`must be one of a, b`:              {"--kind", "c"},
		`KEY=VALUE`:                        {"--label", "k"},
		`must not be empty`:                {"--loud", ""},
		`PROGRAM_LOG_LEVEL`:                {"--number", "1"},
		`at most 100`:                      {"--log-level", "info", "--number", "101"},
		`read the configuration`:           {"--log-level", "info", "--config", "/missing"},
		`unknown key "sockt"`:              {"--log-level", "info", "--config", written(t, "sockt: 1")},
		`unknown key "config"`:             {"--log-level", "info", "--config", written(t, "config: f")},
		`number: "many" is not a whole`:    {"--log-level", "info", "--config", written(t, "number: many")},
		`number: it must be one value`:     {"--log-level", "info", "--config", written(t, "number: [1]")},
		`data-dir: it must be one value`:   {"--log-level", "info", "--config", written(t, "data-dir: {a: b}")},
		`neither true nor false`:           {"--version=perhaps"},
		`config.yaml: kind: it must be on`: {"--log-level", "info", "--config", written(t, "kind: c")},
	} {
		if _, _, err := parse(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want something with %q", args, err, want)
		}
	}
}

func TestHelpNamesEveryFlagWithItsDefaultAndItsVariable(t *testing.T) {
	_, out, err := parse("--help")
	if !errors.Is(err, daemonflags.ErrHelp) {
		t.Fatal(err)
	}
	out = strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"Usage: program [flags] A program. Flags: -h, --help",
		"--data-dir DIR Where data is. Default: /data ($PROGRAM_DATA_DIR).",
		"--kind KIND One of a, b. Default: a ($PROGRAM_KIND).",
		"--number N How many. Default: 7 ($PROGRAM_NUMBER).",
		"--part PART How much ($PROGRAM_PART).",
		"--secret SECRET Not from the environment.",
		"--version Print the version.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from:\n%s", want, out)
		}
	}
}

func TestAStructThatIsNoFlagsIsRefused(t *testing.T) {
	var wrong struct {
		Field complex128 `default:"1"`
	}
	if err := (daemonflags.Program{Name: "p"}).Parse(&wrong, nil, io.Discard); err == nil {
		t.Error("no error")
	}
}
