//go:build linux

package e2e

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
)

// built is where "make build" puts the programs.
const built = "../../bin"

// storiesAtOnce is a default. Most of a story is waiting, for machines to boot and for time to pass, so one for each processor
// leaves them idle; more than this, and stories wait for each other.
const storiesAtOnce = 3

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(max(storiesAtOnce, runtime.GOMAXPROCS(0)))); err != nil {
			panic(err)
		}
	}
	m.Run()
}

func TestScripts(t *testing.T) {
	ctx, binDir := prepare(t)
	images, err := image.Build(ctx, "1", "2", image.Checked)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                "scripts",
		RequireUniqueNames: true,
		Setup:              func(env *testscript.Env) error { return newStory(ctx, env, binDir, images) },
		Cmds:               commands,
	})
}

// prepare returns a folder with the programs for a test's machines. A Ctrl-C ends the context, with it the
// stories, and they their machines.
func prepare(t *testing.T) (ctx context.Context, binDir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("machines are made by root: \"make test\" runs this test as root")
	}
	if err := cluster.CheckBinaries(built); err != nil {
		t.Fatal(err)
	}
	// Machines run copies of the programs: a build meanwhile changes nothing for them.
	binDir = t.TempDir()
	for _, program := range cluster.Programs {
		if err := copyProgram(filepath.Join(binDir, program), filepath.Join(built, program)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	return ctx, binDir
}

func copyProgram(to, from string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

// versions are the images by what the scripts call them.
type versions = map[string]v1.Image
