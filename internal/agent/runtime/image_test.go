package runtime

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestAPinnedImageIsPulledByItsDigest(t *testing.T) {
	b := newBench(t)
	versions := make([]v1.Image, 2)
	for i, version := range []string{"old", "new"} { // the tag moves on
		image, err := actorImage(b.lab.actor)
		if err != nil {
			t.Fatal(err)
		}
		image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/bin/actor"}, Env: []string{"VERSION=" + version}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.lab.push("pinned:1", image); err != nil {
			t.Fatal(err)
		}
		versions[i] = image
	}
	digest, err := versions[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := b.Pull(t.Context(), b.lab.registry+"/pinned:1@"+digest.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Image{Name: b.lab.registry + "/pinned@" + digest.String(), Digest: digest.String()}); pulled != want {
		t.Errorf("pulled %v, want %v", pulled, want)
	}
	c := b.container("pinned", "show")
	c.Image = pulled
	b.run(c)
	b.exit(c.ID)
	if got := b.output("pinned"); !strings.Contains(got, "VERSION=old") {
		t.Errorf("it runs with %q", got)
	}
}

func TestAPinnedImageThatIsPresentUnderAnotherNameIsNotPulled(t *testing.T) {
	b := newBench(t)
	silent := func(string) { t.Error("the registry was asked") }
	for _, name := range []string{b.lab.registry + "/test:1", "127.0.0.1:1/gone/elsewhere:2"} {
		pulled, err := b.Pull(t.Context(), name+"@"+b.image.Digest, silent)
		if err != nil || pulled.Digest != b.image.Digest || !strings.HasSuffix(pulled.Name, "@"+b.image.Digest) {
			t.Fatalf("%s: %v, %v", name, pulled, err)
		}
	}
	// What the tag means may change; the pin holds the image.
	if err := b.client.ImageService().Delete(b.context(t.Context()), b.image.Name); err != nil {
		t.Fatal(err)
	}
	pulled, err := b.Pull(t.Context(), b.lab.registry+"/test:1@"+b.image.Digest, silent)
	if err != nil {
		t.Fatal(err)
	}
	c := b.container("kept", "echo", "kept")
	c.Image = pulled
	b.run(c)
	b.exit(c.ID)
	if got := b.output("kept"); got != "kept\n" {
		t.Errorf("output %q", got)
	}
}

func TestAPinNobodyHasIsToldWithNameAndDigest(t *testing.T) {
	b := newBench(t)
	digest := "sha256:" + strings.Repeat("0123", 16)
	_, err := b.Pull(t.Context(), b.lab.registry+"/test:1@"+digest, nil)
	if err == nil || !strings.Contains(err.Error(), "registry "+b.lab.registry+" has no "+b.lab.registry+"/test with the digest "+digest+", and nor has this node") {
		t.Errorf("got %v", err)
	}
}

func TestAnImageThatSaysTooMuchOfItselfIsRefused(t *testing.T) {
	b := newBench(t)
	image, err := actorImage(b.lab.actor)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/bin/actor"}, Env: []string{"LONG=" + strings.Repeat("x", largestDescription)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.lab.push("long:1", image); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pull(t.Context(), b.lab.registry+"/long:1", nil); err == nil || !strings.Contains(err.Error(), "the image describes itself in") {
		t.Errorf("%.300v", err)
	}
}
