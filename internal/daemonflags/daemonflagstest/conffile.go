// Package daemonflagstest checks what packages promise of a daemon's flags.
package daemonflagstest

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags"
	"github.com/cuemby/warren/packaging/document"
)

// CheckConffile checks the configuration file that a daemon's package installs, as written for a program whose flags are an F:
// every flag is in it, it is in order by the daemon's own word (run), and what it says are the defaults.
func CheckConffile[F any](t *testing.T, program daemonflags.Program, run func(args []string, stdout, stderr io.Writer) int) {
	t.Helper()
	model, err := document.Model(program, new(F))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "conffile.yaml")
	text := document.Config(model, path)
	for _, flag := range model.Flags {
		switch {
		case flag.Name == "help" || flag.Name == "version" || flag.Name == "config":
		case !strings.Contains(text, "\n#"+flag.Name+": "):
			t.Errorf("no key %s in\n%s", flag.Name, text)
		case flag.HasDefault: // it says so without the comment sign, too
			text = strings.Replace(text, "\n#"+flag.Name+": ", "\n"+flag.Name+": ", 1)
		}
	}
	plain := parsed[F](t, program, path, "")
	read := parsed[F](t, program, path, text)
	if !reflect.DeepEqual(plain, read) {
		t.Errorf("with the file\n%+v\nwithout\n%+v", read, plain)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"config", "check", "--config", path}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), path+" is in order") {
		t.Errorf("exit code %d, said %q and %q", code, &stdout, &stderr)
	}
}

// parsed is what a file says, beside the defaults.
func parsed[F any](t *testing.T, program daemonflags.Program, path, text string) (f F) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := program.Parse(&f, []string{"--config", path}, io.Discard); err != nil {
		t.Fatal(err)
	}
	return f
}
