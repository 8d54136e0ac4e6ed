package main

import (
	"flag"
	"os"
	"testing"

	"github.com/cuemby/warren/packaging/document"
)

// referencePage tells every key of both daemons, for people.
const referencePage = "../../docs/reference/configuration.md"

var updateReference = flag.Bool("update", false, "write this daemon's part of docs/reference/configuration.md anew")

func TestTheReferenceTellsTheKeysThatThereAre(t *testing.T) {
	var f flags
	model, err := document.Model(program(), &f)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := document.Keys(model, map[string]string{"max-parallel-starts": "4 for each processor, from 8 to 32"})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	want, err := document.Fill(string(page), program().Name, keys)
	if err != nil {
		t.Fatal(err)
	}
	if *updateReference {
		if err := os.WriteFile(referencePage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(page) != want {
		t.Errorf("%s is not what the keys are: run `make generate`", referencePage)
	}
}
