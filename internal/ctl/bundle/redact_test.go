package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// planted are secrets in every place where people put them.
var planted = []string{
	"env-value-91", "arg-value-92", "flag-value-93", "url-value-94", "probe-value-95", "label-value-96", "output-value-97",
	"incident-value-98", "bearer-value-99", "health-value-90", "sysctl-user-89", "github-value-88", "shell-value-87", "mysql-value-86",
	"digest-value-85", "redis-value-84",
}

func service() *warrenv1.ServiceEntry {
	return &warrenv1.ServiceEntry{Service: &warrenv1.Service{Spec: &warrenv1.ServiceSpec{
		Name: "web", Labels: map[string]string{"db-password": "label-value-96", "team": "shop"},
		Task: &warrenv1.TaskSpec{
			Container: &warrenv1.ContainerSpec{
				Image: "registry.example/team/web:1",
				Env:   []string{"MODE=on", "HARMLESS_NAME=env-value-91"},
				Args: []string{
					"serve", "--db-password", "arg-value-92", "--api-key=flag-value-93", "postgres://joe:url-value-94@db/shop",
					"Authorization: Bearer bearer-value-99", "--port", "8080", "Authorization: token github-value-88", "Proxy-Authorization:Digest a=b, c=digest-value-85",
					"exec redis-server --requirepass redis-value-84 --port 1 && curl --token 'shell-value-87' mysqladmin -hdb -pmysql-value-86 ping",
				},
				Labels: map[string]string{"note": "it is env-value-91 there too", "from": "https://sysctl-user-89@host/"},
			},
			Health: &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"curl", "-u", "probe-value-95", "http://localhost/"}}}},
		},
	}}}
}

func task() *warrenv1.TaskEntry {
	return &warrenv1.TaskEntry{Task: &warrenv1.Task{Status: &warrenv1.TaskStatus{
		Error:     "exit code 1: env-value-91 was refused",
		Exit:      &warrenv1.TaskExit{Code: 1, LastOutput: "connecting with output-value-97\n"},
		Health:    &warrenv1.TaskHealth{Output: "health-value-90"},
		Incidents: []*warrenv1.Incident{{Message: "exit code 1\nwith incident-value-98"}},
	}}}
}

func TestNoPlantedSecretIsLeft(t *testing.T) {
	t.Parallel()
	r := NewRedactor()
	messages := []proto.Message{service(), task()}
	for _, m := range messages {
		r.Learn(m)
	}
	var all strings.Builder
	for _, m := range messages {
		before := proto.Clone(m)
		text, err := r.JSON(m)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(m, before) {
			t.Error("the message itself has changed")
		}
		all.Write(text)
	}
	for _, secret := range planted {
		if strings.Contains(all.String(), secret) {
			t.Errorf("%s is left", secret)
		}
	}
	for _, harmless := range []string{"HARMLESS_NAME=", "registry.example/team/web:1", "serve", "--port", "8080", `"shop"`, "exit code 1", "curl", "postgres://"} {
		if !strings.Contains(all.String(), harmless) {
			t.Errorf("%s is gone", harmless)
		}
	}
}

func TestTextsAreCleanedOfWhatLooksSecretAndOfKnownValues(t *testing.T) {
	t.Parallel()
	token := jointoken.Token{Digest: strings.Repeat("a", 52), Role: warrenv1.Role_ROLE_AGENT, Secret: bytes.Repeat([]byte{7}, jointoken.SecretBytes)}.String()
	r := NewRedactor()
	r.Learn(service())
	for text, want := range map[string]string{
		"joined with " + token + ".":                                                     "joined with (redacted).",
		"key " + unlockkey.New().Text() + " it":                                          "key (redacted) it",
		"-----BEGIN EC PRIVATE KEY-----\nMHc\nCAQ==\n-----END EC PRIVATE KEY-----\nrest": "(redacted)\nrest",
		"-----BEGIN PRIVATE KEY-----\nMHc":                                               "(redacted)",
		"refused env-value-91 twice: env-value-91":                                       "refused (redacted) twice: (redacted)",
		`level=INFO msg=x password="two words" node=n1`:                                  `level=INFO msg=x password=(redacted) node=n1`,
		`{"apiKey": "abc", "node": "n1"}`:                                                `{"apiKey": (redacted), "node": "n1"}`,
		"pull https://u:p@registry/v2/":                                                  "pull https://(redacted)@registry/v2/",
		"Authorization: Basic dXNlcjpwYXNz":                                              "Authorization: (redacted)",
		"the author: joe; 3 tasks of web.1":                                              "the author: joe; 3 tasks of web.1",
	} {
		if got := r.Text(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestWhatTheAPICallsSecretIsTakenOut(t *testing.T) {
	t.Parallel()
	text, err := NewRedactor().JSON(&warrenv1.InitClusterResponse{UnlockKey: "plain", AgentAddr: "10.0.0.1:7420"})
	if err != nil || strings.Contains(string(text), "plain") || !strings.Contains(string(text), "10.0.0.1:7420") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestAnArchiveHoldsWhatWasAdded(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	a := NewArchive(&file, "folder", time.Now())
	for _, name := range []string{"a.txt", "local/b.txt"} {
		if err := a.Add(name, []byte("text of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(zip)
	for _, want := range a.Entries {
		h, err := r.Next()
		if err != nil || h.Name != "folder/"+want.Name || h.Mode != 0o600 {
			t.Fatalf("%v, %v", h, err)
		}
		if text, err := io.ReadAll(r); err != nil || string(text) != "text of "+want.Name {
			t.Errorf("%q, %v", text, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}
