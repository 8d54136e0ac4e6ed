//go:build linux

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
)

// guestPackage holds the test that runs in the machine. Its folder is that of its scripts too: those that share a cluster,
// and the one that ends it.
const guestPackage = "test/kernel/guest"

var scriptFolders = []string{"scripts", "purge"}

// wireguardPackage has tests that look what is there of the kernel's WireGuard, which hosts may lack.
const wireguardPackage, wireguardName = "internal/agent/overlay/wireguard", "wireguard"

// buildDrive makes the second drive: a tar file that the machine unpacks into a folder of its own. It must run
// in the root of the checkout. Chosen are scripts by their names, and the tests of WireGuard by that.
func buildDrive(ctx context.Context, path, packageDir string, chosen *regexp.Regexp) (err error) {
	packages, err := findPackages(packageDir)
	if err != nil {
		return err
	}
	scripts, err := chooseScripts(chosen)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	hello := filepath.Join(dir, "hello.tar")
	if err := saveImage(ctx, hello); err != nil {
		return err
	}
	contents := []string{hello, guestPackage + "/run.sh", "test/machine/leftovers.sh"}
	tests := map[string]string{}
	if len(scripts) > 0 {
		tests["guest.test"] = guestPackage
	}
	if chosen.MatchString(wireguardName) {
		tests["wireguard.test"] = wireguardPackage
	}
	if len(tests) == 0 {
		return fmt.Errorf("no script in %s has a name that matches %q, nor is it %q", guestPackage, chosen, wireguardName)
	}
	for name, of := range tests {
		test := filepath.Join(dir, name)
		if err := compileTest(ctx, test, of); err != nil {
			return err
		}
		contents = append(contents, test)
	}

	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	drive := tar.NewWriter(file)
	defer func() { err = errors.Join(err, drive.Close()) }()
	for _, source := range contents {
		if err := addFile(drive, filepath.Base(source), source); err != nil {
			return err
		}
	}
	for _, source := range packages {
		if err := addFile(drive, "packages/"+filepath.Base(source), source); err != nil {
			return err
		}
	}
	for _, source := range scripts {
		folder := filepath.Base(filepath.Dir(source))
		if err := addFile(drive, folder+"/"+filepath.Base(source), source); err != nil {
			return err
		}
	}
	return nil
}

// findPackages finds what the machine, an amd64 one, is to install: one package of each of Warren's programs.
func findPackages(dir string) ([]string, error) {
	var packages []string
	for _, program := range cluster.Programs {
		found, err := filepath.Glob(filepath.Join(dir, program+"_*_amd64.deb"))
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("one package of %s is to be in %s, and there are %q: run \"make host-packages\" first", program, dir, found)
		}
		packages = append(packages, found[0])
	}
	return packages, nil
}

// chooseScripts lists the scripts whose name, without its suffix, matches.
func chooseScripts(chosen *regexp.Regexp) ([]string, error) {
	var scripts []string
	for _, folder := range scriptFolders {
		all, err := filepath.Glob(filepath.Join(guestPackage, folder, "*.txtar"))
		if err != nil {
			return nil, err
		}
		for _, script := range all {
			if chosen.MatchString(strings.TrimSuffix(filepath.Base(script), ".txtar")) {
				scripts = append(scripts, script)
			}
		}
	}
	return scripts, nil
}

// compileTest builds the test of a package, which is to run in the machine. The machine has the C library of its
// own Debian, so the test does without one.
func compileTest(ctx context.Context, path, of string) error {
	build := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-o", path, "./"+of)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w: %s", of, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// saveImage builds the image that the scripts call $HELLO.
func saveImage(ctx context.Context, path string) error {
	const version = "1"
	images, err := image.Build(ctx, version)
	if err != nil {
		return err
	}
	return image.Save(images[version], "hello:"+version, path)
}

func addFile(drive *tar.Writer, name, source string) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	if err := drive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(drive, file)
	return err
}
