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

// guestPackage holds the test that runs in the machine. Its folder is that of its scripts too.
const guestPackage = "test/kernel/guest"

// wireguardPackage has tests that look what is there of the kernel's WireGuard, which hosts may lack.
const wireguardPackage, wireguardName = "internal/agent/overlay/wireguard", "wireguard"

// share is where the machine finds everything but the programs, below /usr/local.
const share = "share/kernel-test"

// buildDrive makes the second drive: a tar file that the machine unpacks over /usr/local. It must run
// in the root of the checkout. Chosen are scripts by their names, and the tests of WireGuard by that.
func buildDrive(ctx context.Context, path, binDir string, chosen *regexp.Regexp) (err error) {
	if err := cluster.CheckBinaries(binDir); err != nil {
		return err
	}
	scripts, err := chooseScripts(guestPackage+"/scripts", chosen)
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
		return fmt.Errorf("no script in %s/scripts has a name that matches %q, nor is it %q", guestPackage, chosen, wireguardName)
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
	for _, program := range cluster.Programs {
		if err := addFile(drive, "bin/"+program, filepath.Join(binDir, program)); err != nil {
			return err
		}
	}
	for _, source := range contents {
		if err := addFile(drive, share+"/"+filepath.Base(source), source); err != nil {
			return err
		}
	}
	for _, script := range scripts {
		if err := addFile(drive, share+"/scripts/"+filepath.Base(script), script); err != nil {
			return err
		}
	}
	return nil
}

// chooseScripts lists the scripts whose name, without its suffix, matches.
func chooseScripts(dir string, chosen *regexp.Regexp) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	var scripts []string
	for _, script := range all {
		if chosen.MatchString(strings.TrimSuffix(filepath.Base(script), ".txtar")) {
			scripts = append(scripts, script)
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
