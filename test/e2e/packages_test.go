//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
)

// Where "make test-packages" puts packages of the programs that are tested, and an apt repository of the .deb ones.
const (
	packages   = "../../build/packages"
	repository = "../../build/apt"
	// A later release is in these too.
	packagesOfNext   = "../../build/next"
	repositoryOfNext = "../../build/apt-next"
)

// TestPackages tells stories of machines that have Warren from its packages, and no other way.
func TestPackages(t *testing.T) {
	ctx, _ := prepare(t)
	if _, err := os.Stat(filepath.Join(repositoryOfNext, "warren.gpg")); err != nil {
		t.Fatalf("run \"make test-packages\" first: %v", err)
	}
	images, err := image.Build(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(commands)
	all["repository"] = tell(func(s *story, names []string) error { return addRepository(s, repository, names) })
	all["release"] = tell(func(s *story, names []string) error { return addRepository(s, repositoryOfNext, names) })
	all["rpm"] = runRPM
	testscript.Run(t, testscript.Params{
		Dir:                "packages",
		RequireUniqueNames: true,
		Setup:              func(env *testscript.Env) error { return newStory(ctx, env, "", images) },
		Cmds:               all,
	})
}

// addRepository has machines install from a repository of packages, and from nowhere else: that of the programs that
// are tested, and then, as it has been released, one with a later version as well.
//
//	repository M...
//	release M...
func addRepository(s *story, repository string, names []string) error {
	for _, name := range names {
		m, err := s.machine(name)
		if err != nil {
			return err
		}
		if err := cluster.AddRepository(s.ctx, m, repository); err != nil {
			return err
		}
	}
	return nil
}

// runRPM has the host's rpm work on a machine's disk: "rpm M ARG...". Among the arguments, PACKAGE.rpm is that package,
// next/PACKAGE.rpm that of the later release.
func runRPM(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if len(args) < 2 {
		ts.Fatalf("%v", errUsage)
	}
	m, err := s.machine(args[0])
	ts.Check(err)
	// Debian's own rpm asks whether that is meant.
	given := []string{"--force-debian", "--root", m.HostPath("/")}
	for _, arg := range args[1:] {
		if filepath.Ext(arg) == ".rpm" {
			folder := packages
			name, next := strings.CutPrefix(strings.TrimSuffix(arg, ".rpm"), "next/")
			if next {
				folder = packagesOfNext
			}
			found, err := filepath.Glob(filepath.Join(folder, name+"-[0-9]*.rpm"))
			ts.Check(err)
			if len(found) != 1 {
				ts.Fatalf("%s: found %q", arg, found)
			}
			arg, err = filepath.Abs(found[0])
			ts.Check(err)
		}
		given = append(given, arg)
	}
	command := exec.CommandContext(s.ctx, "rpm", given...)
	command.Stdout, command.Stderr = ts.Stdout(), ts.Stderr()
	switch err := command.Run(); {
	case errors.Is(err, context.Canceled), err != nil && !neg:
		ts.Check(fmt.Errorf("rpm %q: %w", given, err))
	case err == nil && neg:
		ts.Fatalf("rpm %q: it succeeded", given)
	}
}
