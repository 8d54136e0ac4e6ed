package main

import (
	"flag"
	"os"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/reference"
)

// referencePage tells every command, for people.
const referencePage = "../../docs/reference/cli.md"

var updateReference = flag.Bool("update", false, "write docs/reference/cli.md anew")

// commandLine returns the parser of the command line.
func commandLine(t *testing.T) *kong.Kong {
	t.Helper()
	return newParser(t.Context(), &cli{}, &output.Streams{Out: output.Stream{Writer: t.Output()}, Err: output.Stream{Writer: t.Output()}}, func(int) {})
}

func TestTheReferenceTellsTheCommandsThatThereAre(t *testing.T) {
	want := reference.Markdown(commandLine(t).Model)
	if *updateReference {
		if err := os.WriteFile(referencePage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the commands are: run `make generate`, or go test ./cmd/warrenctl -run TestTheReference -update", referencePage)
	}
}
