// Package image builds the container image that the demo, the tests and the benchmarks run: the
// program of test/image/hello, alone in one layer, compiled from this checkout.
//
// The same source gives the same image, digest included. Start reading at [Build].
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const program = "github.com/cuemby/warren/test/image/hello"

// Checked is the version whose image has a HEALTHCHECK.
const Checked = "checked"

// Build compiles the program and makes one image for each version of it that is asked for. Versions
// differ in their environment variable VERSION alone, but for Checked. It must run inside the checkout.
func Build(ctx context.Context, versions ...string) (map[string]v1.Image, error) {
	binary, err := compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("build hello image: %w", err)
	}
	base, err := assemble(binary)
	if err != nil {
		return nil, fmt.Errorf("build hello image: %w", err)
	}
	images := map[string]v1.Image{}
	for _, version := range versions {
		config := v1.Config{
			Entrypoint:   []string{"/hello"},
			Env:          []string{"PATH=/", "PORT=8080", "VERSION=" + version},
			ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			WorkingDir:   "/",
		}
		if version == Checked {
			config.Healthcheck = &v1.HealthConfig{
				Test: []string{"CMD", "/hello", "healthy"}, Interval: time.Second, Timeout: 5 * time.Second, Retries: 2,
			}
		}
		if images[version], err = mutate.Config(base, config); err != nil {
			return nil, fmt.Errorf("build hello image: %w", err)
		}
	}
	return images, nil
}

func compile(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "hello")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", path, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s: %w: %s", program, err, bytes.TrimSpace(output))
	}
	return os.ReadFile(path)
}

// assemble makes an image of the program, a place for temporary files and the names of two users.
func assemble(binary []byte) (v1.Image, error) {
	var files bytes.Buffer
	writer := tar.NewWriter(&files)
	const users = "root:x:0:0:root:/:/hello\nnobody:x:65534:65534:nobody:/:/hello\n"
	const groups = "root:x:0:\nnogroup:x:65534:\n"
	for _, file := range []struct {
		header  tar.Header
		content []byte
	}{
		{header: tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}},
		{header: tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, content: []byte(groups)},
		{header: tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, content: []byte(users)},
		{header: tar.Header{Typeflag: tar.TypeReg, Name: "hello", Mode: 0o755}, content: binary},
		{header: tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}},
	} {
		file.header.Size = int64(len(file.content))
		if err := writer.WriteHeader(&file.header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(file.content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	return mutate.ConfigFile(image, config)
}

// Push stores an image in a registry that speaks plain HTTP, under a reference such as
// "10.77.0.1:5000/hello:1".
func Push(ctx context.Context, image v1.Image, reference string, transport http.RoundTripper) error {
	tag, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return fmt.Errorf("push %s: %w", reference, err)
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx), remote.WithTransport(transport)); err != nil {
		return fmt.Errorf("push %s: %w", reference, err)
	}
	return nil
}

// Save writes an image to a file that "ctr images import" and "docker load" read.
func Save(image v1.Image, reference, path string) error {
	tag, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return fmt.Errorf("save %s: %w", reference, err)
	}
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		return fmt.Errorf("save %s: %w", reference, err)
	}
	return nil
}
