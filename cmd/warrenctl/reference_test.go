package main

import (
	"flag"
	"os"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/reference"
)

// referencePage tells every command, for people.
const referencePage = "../../docs/reference/cli.md"

var updateReference = flag.Bool("update", false, "write docs/reference/cli.md anew")

// commandLine returns the parser of the command line.
func commandLine(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Name("warrenctl"), kong.Description(description), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	return parser
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
