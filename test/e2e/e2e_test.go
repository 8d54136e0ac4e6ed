//go:build linux

package e2e

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
)

const binDir = "../../bin"

func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("machines are made by root: \"make test\" runs this test as root")
	}
	if err := cluster.CheckBinaries(binDir); err != nil {
		t.Fatal(err)
	}
	// A Ctrl-C ends the stories, and they their machines.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	images, err := image.Build(ctx, "1", "2")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                "scripts",
		RequireUniqueNames: true,
		Setup:              func(env *testscript.Env) error { return newStory(ctx, env, images) },
		Cmds:               commands,
	})
}

// versions are the images by what the scripts call them.
type versions = map[string]v1.Image
