package runtime

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestKillsForMemoryAreCountedOnBothCgroupVersions(t *testing.T) {
	for text, want := range map[string]uint64{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n":                2, // version 1: memory.oom_control
		"low 0\nhigh 0\nmax 17\noom 3\noom_kill 1\noom_group_kill 0\n": 1, // version 2: memory.events
		"low 0\nhigh 0\nmax 17\noom 3\noom_kill 0\n":                   0,
		"oom_kill_disable 0\nunder_oom 0\n":                            0, // before Linux 4.13
		"":                                                             0,
	} {
		if got := parseMemoryKills(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestCredentialsAreFoundWhereDockerKeepsThem(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	helper := "#!/bin/sh\nread -r host\n[ \"$1\" = get ] || exit 1\ncase $host in\nhelped.example) echo '{\"Username\":\"u\",\"Secret\":\"s-'$host'\"}';;\ntoken.example) echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}';;\n*) echo 'credentials not found in native keychain'; exit 1;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, []byte(`{
		"auths": {
			"https://index.docker.io/v1/": {"auth": "aHViOnB3"},
			"plain.example:5000": {"username": "a", "password": "b"},
			"identity.example": {"auth": "eDp5", "identitytoken": "refresh"},
			"broken.example": {"auth": "%%%"},
			"helped.example": {}
		},
		"credHelpers": {"helped.example": "test", "token.example": "test", "gone.example": "missing"},
		"credsStore": "test"
	}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		host, user, secret string
		fails              bool
	}{
		{host: "registry-1.docker.io", user: "hub", secret: "pw"},
		{host: "plain.example:5000", user: "a", secret: "b"},
		{host: "identity.example", secret: "refresh"},
		{host: "helped.example", user: "u", secret: "s-helped.example"},
		{host: "token.example", secret: "t"},
		{host: "unknown.example"},
		{host: "broken.example", fails: true},
		{host: "gone.example", fails: true},
	} {
		user, secret, err := credentials(t.Context(), config, test.host)
		if user != test.user || secret != test.secret || (err != nil) != test.fails {
			t.Errorf("%s: %q %q %v", test.host, user, secret, err)
		}
	}
	if user, secret, err := credentials(t.Context(), filepath.Join(dir, "none"), "x"); user != "" || secret != "" || err != nil {
		t.Errorf("a missing file: %q %q %v", user, secret, err)
	}
}

func TestInsecureRegistriesAreThoseNamed(t *testing.T) {
	registries, err := parseInsecureRegistries([]string{"registry.lan", "other.lan:5000", "10.0.0.0/8", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	for registry, want := range map[string]bool{
		"localhost:5000": true, "127.0.0.1:5000": true, "registry.lan": true, "REGISTRY.lan:99": true,
		"other.lan:5000": true, "other.lan:5001": false, "10.1.2.3:5000": true, "11.1.2.3": false,
		"[fd00::1]:5000": true, "docker.io": false,
	} {
		if got, err := registries.match(registry); got != want || err != nil {
			t.Errorf("%s: %v %v", registry, got, err)
		}
	}
	if _, err := parseInsecureRegistries([]string{"10.0.0.0/99"}); err == nil {
		t.Error("a range that is none was taken")
	}
}

func TestErrorsAreFreedOfTheirMessengers(t *testing.T) {
	cause := errors.New(`failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "x": executable file not found in $PATH: unknown`)
	got := plain(cause)
	if got.Error() != `exec: "x": executable file not found in $PATH` || !errors.Is(got, cause) {
		t.Errorf("%v", got)
	}
}

func TestProgressIsToldInWordsAndNotTooOften(t *testing.T) {
	var told []string
	m := newMeter(func(s string) { told = append(told, s) }, nil)
	layer := imagespec.Descriptor{Digest: "sha256:1", Size: 2_000_000}
	m.counted["sha256:1"], m.total = true, layer.Size
	for range 10 {
		m.add(layer, 100_000)
	}
	if len(told) != 1 || told[0] != "pulling 5 % (0.1 of 2.0 MB)" {
		t.Errorf("%q", told)
	}
}

func TestUsersAreLookedUpInTheImage(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"etc/real":  "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n",
		"etc/group": "root:x:0:\nwheel:x:10:root\nmedia:x:2000:app\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Absolute links are the image's, not the node's.
	if err := os.Symlink("/etc/real", filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		user     string
		uid, gid uint32
		groups   int
		fails    bool
	}{
		{user: "", groups: 1}, {user: "root", groups: 1}, {user: "app", uid: 1000, gid: 1001, groups: 1},
		{user: "app:media", uid: 1000, gid: 2000}, {user: "42", uid: 42}, {user: "42:43", uid: 42, gid: 43},
		{user: "nobody", fails: true}, {user: "app:nogroup", fails: true},
	} {
		got, err := lookUpUser(root, test.user, nil)
		if got.UID != test.uid || got.GID != test.gid || len(got.Groups) != test.groups || (err != nil) != test.fails {
			t.Errorf("user %q: %+v %v", test.user, got, err)
		}
	}
	if _, err := lookUpUser(t.TempDir(), "7", []string{"8"}); err != nil {
		t.Errorf("an image without files: %v", err)
	}
	for _, groups := range [][]string{{""}, {"media", ""}, {"nogroup"}, {"-1"}, {"99999999999"}} {
		if _, err := lookUpUser(root, "app", groups); err == nil || !strings.HasPrefix(err.Error(), "groups: ") {
			t.Errorf("groups %q: %v", groups, err)
		}
	}
}

func TestAnImageWhoseListOfUsersIsNoFileIsRefused(t *testing.T) {
	for name, place := range map[string]func(path string) error{
		"a pipe":        func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a folder":      func(path string) error { return os.Mkdir(path, 0o755) },
		"a link to one": func(path string) error { return os.Symlink("/etc", path) },
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := place(filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		looked := make(chan error, 1)
		go func() {
			_, err := lookUpUser(root, "app", nil)
			looked <- err
		}()
		select {
		case err := <-looked:
			if err == nil || !strings.Contains(err.Error(), "/etc/passwd is not a file") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s: it is waited for", name)
		}
	}
}

func FuzzUsersAndGroups(f *testing.F) {
	f.Add("app:media", "media", "app:x:1000:1001::/:/bin/sh\n", "media:x:2000:app\n")
	f.Add("", "", "", "")
	f.Add(":", "-1", "::::", ":::,")
	f.Fuzz(func(t *testing.T, name, group, users, groups string) {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"passwd": users, "group": groups} {
			if err := os.WriteFile(filepath.Join(root, "etc", file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		// Whatever they say, the answer is a user or an error.
		_, _ = lookUpUser(root, name, []string{group})
		_, _ = lookUpUser(root, name, nil)
	})
}

func TestAPanicWhileAContainerIsCreatedIsAnErrorOfItsTask(t *testing.T) {
	var log bytes.Buffer
	r := &Runtime{logger: slog.New(slog.NewTextHandler(&log, nil))}
	err := func() (err error) {
		defer r.outlive(&err, Container{TaskID: "task", Attempt: 2})
		panic("unforeseen")
	}()
	if err == nil || !strings.Contains(err.Error(), "a fault of the agent") {
		t.Errorf("error is %v", err)
	}
	for _, part := range []string{"task=task", "attempt=2", "unforeseen", "unit_test.go"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %q: %s", part, &log)
		}
	}
}

func TestAStopSignalIsOneThatThereIs(t *testing.T) {
	for _, c := range []struct{ asked, image, want string }{
		{"", "", "SIGTERM"}, {"", "SIGQUIT", "SIGQUIT"}, {"", "999", "SIGTERM"}, {"", "nonsense", "SIGTERM"},
		{"SIGINT", "SIGQUIT", "SIGINT"}, {"HUP", "", "HUP"}, {"64", "", "64"}, {"SIGRTMIN+15", "", "SIGRTMIN+15"},
		{"65", "", ""}, {"0", "", ""}, {"-1", "", ""}, {"NOPE", "", ""},
	} {
		got, err := chooseStopSignal(&warrenv1.ContainerSpec{StopSignal: c.asked}, c.image)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q over %q is %q, %v", c.asked, c.image, got, err)
		}
	}
}
