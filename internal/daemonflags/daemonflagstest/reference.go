package daemonflagstest

import (
	"os"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/packaging/document"
)

// CheckReference checks that a page for people tells every key of a program whose flags are an F; depends has in words the defaults
// that depend on the machine. With update it writes the program's part of the page anew instead.
func CheckReference[F any](t *testing.T, program daemonflags.Program, page string, depends map[string]string, update bool) {
	t.Helper()
	model, err := document.Model(program, new(F))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := document.Keys(model, depends)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want, err := document.Fill(string(text), program.Name, keys)
	if err != nil {
		t.Fatal(err)
	}
	if update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is not what the keys are: run `make generate`", page)
	}
}
