package reference_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/reference"
)

// dishes is a command line with one of everything.
type dishes struct {
	Kitchen string `env:"KITCHEN" help:"Which kitchen." placeholder:"NAME"`

	Soup struct {
		Cook struct {
			Salt  []string      `short:"s" sep:"none" help:"Kinds of salt: sea|rock." placeholder:"KIND"`
			For   time.Duration `aliases:"time" default:"5m" group:"Heat" help:"How long." placeholder:"DURATION"`
			Warm  time.Duration `default:"1m" group:"Heat" help:"How long before (${default})." placeholder:"DURATION"`
			Lid   bool          `help:"Cover it."`
			Trick bool          `hidden:"" help:"Not told."`
			What  []string      `arg:"" name:"root" help:"What <goes> in."`
		} `cmd:"" aliases:"boil" help:"Cook one."`
		Ls struct{} `cmd:"" help:"List them."`
	} `cmd:"" aliases:"soups" help:"Soups."`
	Taste struct {
		Any struct {
			Name string `arg:"" help:"What to taste."`
		} `cmd:"" default:"withargs" hidden:"" help:"Taste anything."`
		Soup struct{} `cmd:"" help:"Taste a soup."`
	} `cmd:"" help:"Taste."`
	Save struct {
		Whole struct{} `cmd:"" default:"withargs" help:"All of it."`
	} `cmd:"" help:"Save."`
	Secret struct{} `cmd:"" hidden:"" help:"Not told."`
}

func page(t *testing.T) string {
	t.Helper()
	parser, err := kong.New(&dishes{}, kong.Name("cook"), kong.Description("Cooks."))
	if err != nil {
		t.Fatal(err)
	}
	return reference.Markdown(parser.Model)
}

func TestEveryCommandHasASectionWithItsWordsFlagsAndArguments(t *testing.T) {
	got := page(t)
	for _, want := range []string{
		"- [soup](#soup), [soup cook](#soup-cook), [soup ls](#soup-ls)\n",
		"## Flags of all commands\n\n| flag | |\n| --- | --- |\n| `--kitchen NAME` | Which kitchen. Environment: `KITCHEN`. |\n",
		"## soup\n\nSoups.\n\nAlso: `soups`.\n",
		"### soup cook\n\nCook one.\n\n    cook soup cook [flags] <root> ...\n\nAlso: `boil`.\n",
		"| argument | |\n| --- | --- |\n| `<root> ...` | What &lt;goes> in. |\n",
		"| `-s`, `--salt KIND` | Kinds of salt: sea\\|rock. *Repeatable.* |\n",
		"| heat | |\n| --- | --- |\n| `--for DURATION`, `--time` | How long. Default: `5m`. |\n",
		"| `--warm DURATION` | How long before (1m). |\n",
		"| `--lid` | Cover it. |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("this is missing:\n%s\nfrom:\n%s", want, got)
		}
	}
}

func TestACommandThatStandsForAnotherSaysForWhich(t *testing.T) {
	got := page(t)
	for _, want := range []string{
		"## taste\n\nTaste.\n\n    cook taste [flags] <name>\n\n| argument | |\n| --- | --- |\n| `<name>` | What to taste. |\n",
		"## save\n\nSave.\n\n    cook save [flags]\n\nWithout one of its commands it is [save whole](#save-whole).\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("this is missing:\n%s\nfrom:\n%s", want, got)
		}
	}
}

func TestWhatIsHiddenIsNotTold(t *testing.T) {
	got := page(t)
	for _, hidden := range []string{"trick", "secret", "Not told", "taste any", "--help"} {
		if strings.Contains(got, hidden) {
			t.Errorf("%q is told", hidden)
		}
	}
}
