package registry

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// fake is a registry over plain HTTP that knows team/app:1 and team/app:latest; with a user it lets nobody else look,
// and where it is headless it tells no digest in answer to HEAD.
func fake(t *testing.T, user string, headless bool) (host string) {
	t.Helper()
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, _, _ := r.BasicAuth(); user != "" && name != user {
			w.Header().Set("WWW-Authenticate", `Basic realm="team"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/v2/":
		case "/v2/team/app/manifests/1", "/v2/team/app/manifests/latest":
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
			if !headless {
				w.Header().Set("Docker-Content-Digest", digest)
			}
			if r.Method == http.MethodGet {
				fmt.Fprint(w, manifest)
			}
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// nobody is a user without credentials.
func nobody(t *testing.T) (dockerConfig string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", filepath.Join(dir, ".docker"))
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return filepath.Join(dir, ".docker", "config.json")
}

func TestATagIsResolvedToWhatItStandsFor(t *testing.T) {
	nobody(t)
	host := fake(t, "", false)
	for image, want := range map[string]string{
		host + "/team/app:1":            host + "/team/app:1@" + digest,
		host + "/team/app":              host + "/team/app:latest@" + digest,
		host + "/team/app:1@" + digest:  host + "/team/app:1@" + digest,
		"nowhere.invalid/app@" + digest: "nowhere.invalid/app@" + digest,
		host + "/team/app:latest":       host + "/team/app:latest@" + digest,
	} {
		if got, err := Resolve(t.Context(), image); got != want || err != nil {
			t.Errorf("%s is %s (%v), want %s", image, got, err, want)
		}
	}
}

func TestARegistryThatTellsNoDigestAheadIsAskedForTheManifest(t *testing.T) {
	nobody(t)
	host := fake(t, "", true)
	if got, err := Resolve(t.Context(), host+"/team/app:1"); err != nil || !strings.HasPrefix(got, host+"/team/app:1@sha256:") {
		t.Errorf("got %s and %v", got, err)
	}
}

func TestTheCredentialsOfDockerLoginAreUsed(t *testing.T) {
	config := nobody(t)
	host := fake(t, "anna", false)
	if _, err := Resolve(t.Context(), host+"/team/app:1"); err == nil || !strings.Contains(err.Error(), "is `docker login` due?") {
		t.Errorf("without credentials: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("anna:secret"))
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Resolve(t.Context(), host+"/team/app:1"); got != host+"/team/app:1@"+digest || err != nil {
		t.Errorf("got %s and %v", got, err)
	}
}

func TestWhatCannotBeResolvedIsSaidSoon(t *testing.T) {
	nobody(t)
	host := fake(t, "", false)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := closed.Addr().String()
	_ = closed.Close()
	for image, want := range map[string]string{
		host + "/team/app:2":     host + ": there is no such image",
		gone + "/team/app:1":     gone + ": connect: connection refused",
		"registry.invalid/app:1": "registry.invalid: no address is known",
		"Not An Image":           "is not the name of an image",
	} {
		began := time.Now()
		if got, err := Resolve(t.Context(), image); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %s (%v), want %s", image, got, err, want)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s took %v", image, took)
		}
	}
}

func TestARegistryThatNeverAnswersIsGivenUp(t *testing.T) {
	nobody(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	_, err = Resolve(t.Context(), silent.Addr().String()+"/app:1")
	if err == nil || !strings.Contains(err.Error(), "it does not answer in time") {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(began); took > wholeTime+2*time.Second {
		t.Errorf("it took %v", took)
	}
}
