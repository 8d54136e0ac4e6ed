package document

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/daemonflags"
)

type program struct {
	Name   string            `placeholder:"NAME" help:"A name. It's .short - really."`
	Listen string            `default:":7420" placeholder:"HOST:PORT" help:"Where."`
	Peer   []string          `placeholder:"HOST:PORT" help:"A peer. Repeat it for each."`
	Label  map[string]string `placeholder:"KEY=VALUE" help:"A label. Repeat it for each."`
	Token  string            `name:"join-token" placeholder:"TOKEN" help:"A token."`
	Count  int               `default:"3" placeholder:"N" env:"COUNT" help:"How many."`
	Secret string            `hidden:"" help:"Nobody's."`
}

type commands struct {
	Service struct {
		Create struct {
			Image string `arg:"" help:"The image."`
			Loud  bool   `help:"Loudly."`
		} `cmd:"" aliases:"run" help:"Create a service."`
	} `cmd:"" help:"Services."`
	Within struct{} `cmd:"" hidden:""`
}

// Help is shown below the command's summary.
func (commands) Help() string { return "Begin.\n\n    $ x service create a\\b\n\nEnd." }

func model(t *testing.T, grammar any) *kong.Application {
	t.Helper()
	parser, err := kong.New(grammar, kong.Name("x"), kong.Description("Does it.\n\nThoroughly."))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

func TestAConfigurationFileHasEveryKeyExplainedAndCommentedOut(t *testing.T) {
	got := Config(model(t, new(program)), "/etc/x.yaml")
	for _, want := range []string{
		"\n#name: NAME\n", "\n#listen: \":7420\"\n", "\n# A peer. Several are given as [a, b].\n#peer: [\"HOST:PORT\"]\n",
		"\n#label: {KEY: VALUE}\n", "where every user of this machine can read it.\n#join-token: TOKEN\n", "\n# How many.\n#count: 3\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		if len(line) > width+1 || (line != "\n" && !strings.HasPrefix(line, "#")) {
			t.Errorf("line %q", line)
		}
	}
	if strings.Contains(got, "secret") {
		t.Error("a hidden flag is told")
	}
}

func TestTheReferenceTellsAllThatIsToKnowOfEachKey(t *testing.T) {
	var grammar struct {
		program
		daemonflags.Logging
	}
	got, err := Keys(model(t, &grammar), map[string]string{"name": "the machine's"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `name` | `--name` | NAME | the machine's | restart | A name. It's .short - really. |\n",
		"| `peer` | `--peer` | list of HOST:PORT |  | restart | A peer. Repeat it for each. |\n",
		"| `label` | `--label` | map: KEY=VALUE |  | restart |",
		"| `count` | `--count`, `COUNT` | whole number | `3` | restart | How many. |\n",
		"| `log-level` | `--log-level` | `debug`, `info`, `warn`, `error` | `info` | reload |",
		"A token. Not in the configuration file, which every user of the machine can read. |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "secret") || strings.Contains(got, "help") {
		t.Errorf("what is no key is told:\n%s", got)
	}
}

func TestAPageIsFilledWhereItHasAPlaceForIt(t *testing.T) {
	page := "before\n<!-- x: written by `make generate` -->\n\nold\n\n<!-- x: end -->\nafter\n"
	got, err := Fill(page, "x", "new\n")
	if want := strings.Replace(page, "old", "new", 1); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Fill("before\nafter\n", "x", "new\n"); err == nil {
		t.Error("a page without a place was filled")
	}
}

func TestADaemonsPageTellsFlagsWithDefaultsAndEnvironment(t *testing.T) {
	page := Daemon(model(t, new(program)), Also{"FILES", [][2]string{{"/etc/x", "A file."}}})
	if page.Name != "x" || page.Section != 8 {
		t.Errorf("it is %s(%d)", page.Name, page.Section)
	}
	for _, want := range []string{
		".SH FLAGS", `.B \-\-count=N`, "How many. Default: 3. Environment: COUNT.", ".SH FILES\n.TP\n.B /etc/x\nA file.", "A name. It's .short \\- really.",
	} {
		if !strings.Contains(page.Text, want) {
			t.Errorf("no %q in\n%s", want, page.Text)
		}
	}
}

func TestEachCommandHasAPage(t *testing.T) {
	pages := CommandLine(model(t, new(commands)))
	dir := t.TempDir()
	if err := Write(dir, pages, map[string]string{"other": "text"}); err != nil {
		t.Fatal(err)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(entries) != 3 {
		t.Fatalf("wrote %q, %v", entries, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "x-service-create.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".SH ARGUMENTS\n.TP\n.I <image>\nThe image.", `.B \-\-loud`, "Also known as run."} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestWhatIsIndentedIsAnExampleAndStaysAsItIs(t *testing.T) {
	w := newPage("x", 1, "X.")
	w.prose("Begin.\n\n    $ x \\ -a\n\n.End")
	if want := "Begin.\n.sp\n.PP\n.nf\n.RS\n$ x \\e \\-a\n.RE\n.fi\n.PP\n\\&.End\n"; !strings.HasSuffix(w.page.Text, want) {
		t.Errorf("%q does not end with %q", w.page.Text, want)
	}
}
