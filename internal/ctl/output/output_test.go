package output

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/ctl/failure"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func sample() *Table {
	return &Table{
		Columns: []Column{{Title: "NAME", Key: "Name"}, {Title: "IMAGE", Key: "Image", Elastic: true}, {Title: "ERROR", Key: "Error", Elastic: true}, {Title: "MORE", Key: "More", Wide: true}},
		Rows: []Row{
			{ID: "1", Name: "a", Cells: []Cell{{Text: "a", Short: "A"}, {Text: "nginx:1.27", Colour: Good}, {Text: "no\nsuch \x1b[31mimage at all"}, {Text: "x"}}, Object: wrapperspb.String("a")},
			{ID: "2", Name: "b", Cells: []Cell{{Text: "größer"}, {Text: ""}, {Text: ""}, {Text: "y"}}, Object: wrapperspb.String("true")},
		},
	}
}

func shown(t *testing.T, f ListFlags, s Stream) string {
	t.Helper()
	var b bytes.Buffer
	s.Writer = &b
	if err := f.List(s, sample()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEveryFormOfAList(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags ListFlags
		want  string
	}{
		{"table", ListFlags{Output: "table"}, "NAME     IMAGE        ERROR\nA        nginx:1.27   no such [31mimage at all\ngrößer\n"},
		{"wide", ListFlags{Output: "wide"}, "NAME     IMAGE        ERROR                      MORE\na        nginx:1.27   no such [31mimage at all   x\ngrößer                                           y\n"},
		{"names", ListFlags{Output: "name"}, "a\nb\n"},
		{"ids", ListFlags{Output: "table", Quiet: true}, "1\n2\n"},
		{"json", ListFlags{Output: "json"}, "[\n  \"a\",\n  \"true\"\n]\n"},
		{"yaml", ListFlags{Output: "yaml"}, "- a\n- \"true\"\n"},
		{"template", ListFlags{Output: "table", Format: `{{.Name}}:{{upper .Image}}`}, "a:NGINX:1.27\ngrößer:\n"},
		{"template with titles", ListFlags{Output: "table", Format: `table {{.Name}}\t{{.More}}`}, "NAME     MORE\na        x\ngrößer   y\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := shown(t, c.flags, Stream{}); got != c.want {
				t.Errorf("shows\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestATableFitsTheTerminal(t *testing.T) {
	narrow := Stream{Terminal: true, width: func() int { return 36 }}
	const want = "NAME     IMAGE        ERROR\nA        nginx:1.27   no such [31mi…\ngrößer\n"
	if got := shown(t, ListFlags{Output: "table"}, narrow); got != want {
		t.Errorf("shows\n%s\nwant\n%s", got, want)
	}
	if got := shown(t, ListFlags{Output: "table", NoTrunc: true}, narrow); !strings.Contains(got, "image at all") {
		t.Errorf("--no-trunc cuts:\n%s", got)
	}
}

func TestColourChangesNoWidth(t *testing.T) {
	coloured := shown(t, ListFlags{Output: "table"}, Stream{Colour: true})
	if !strings.Contains(coloured, "\x1b[32mnginx:1.27\x1b[0m") {
		t.Errorf("no colour in %q", coloured)
	}
	if plain := strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(coloured); plain != shown(t, ListFlags{Output: "table"}, Stream{}) {
		t.Errorf("shows\n%s", plain)
	}
}

func TestATemplateThatNamesNoColumnSaysWhichThereAre(t *testing.T) {
	var out bytes.Buffer
	err := ListFlags{Format: "{{.Name}} {{.Nmae}}"}.List(Stream{Writer: &out}, sample())
	if err == nil || !strings.Contains(err.Error(), "the columns are .Name .Image .Error .More") || failure.ExitCode(err) != failure.Usage {
		t.Errorf("error is %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("half a line was written: %q", &out)
	}
	if err := (ListFlags{Format: "{{"}).List(Stream{}, sample()); failure.ExitCode(err) != failure.Usage {
		t.Errorf("error is %v", err)
	}
}

func TestATemplateThatNamesNoFieldIsWrongUsageAndWritesNothing(t *testing.T) {
	var out bytes.Buffer
	err := Inspect(InspectFlags{Format: "{{.Name}} {{.Nmae}}"}, Stream{Writer: &out}, []*warrenv1.ServiceSpec{{Name: "web"}},
		func(s *warrenv1.ServiceSpec) any { return s }, nil)
	if failure.ExitCode(err) != failure.Usage || out.Len() > 0 {
		t.Errorf("error is %v, written is %q", err, &out)
	}
}

func TestYAMLKeepsTheOrderOfFieldsAndTheTypesOfValues(t *testing.T) {
	var b bytes.Buffer
	objects := []proto.Message{&warrenv1.ServiceSpec{
		Name: "on", Labels: map[string]string{"version": "1.10"},
		Task: &warrenv1.TaskSpec{Limits: &warrenv1.Resources{MemoryBytes: 64}},
	}}
	if err := documents(Stream{Writer: &b}, objects, asYAML); err != nil {
		t.Fatal(err)
	}
	const want = "- name: \"on\"\n  labels:\n    version: \"1.10\"\n  task:\n    limits:\n      memoryBytes: \"64\"\n"
	if b.String() != want {
		t.Errorf("shows\n%s\nwant\n%s", b.String(), want)
	}
}

func TestNothingThatComesFromElsewhereCanSteerTheTerminal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clean := OneLine(rapid.String().Draw(t, "text"))
		for _, r := range clean {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
				t.Fatalf("%q holds %U", clean, r)
			}
		}
	})
}

func TestTheSameKeyHasTheSameColour(t *testing.T) {
	if first, again := Distinct("abc"), Distinct("abc"); first != again || first == 0 {
		t.Error("colours change")
	}
}

func BenchmarkTableOfAThousandRows(b *testing.B) {
	t := sample()
	for len(t.Rows) < 1000 {
		t.Rows = append(t.Rows, t.Rows[0])
	}
	for b.Loop() {
		if err := t.write(Stream{Writer: &bytes.Buffer{}}, true, true); err != nil {
			b.Fatal(err)
		}
	}
}
