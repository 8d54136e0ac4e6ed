package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/cuemby/warren/internal/ctl/command"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// model returns the command line's parser.
func model(t *testing.T) *kong.Kong {
	t.Helper()
	return newParser(t.Context(), &cli{}, output.Standard(), func(int) {})
}

// words are what one types for a command.
func words(n *kong.Node) []string {
	if n.Type != kong.CommandNode {
		return nil
	}
	return append(words(n.Parent), n.Name)
}

func TestEveryDurationIsRefusedInTheSameWords(t *testing.T) {
	parser, found := model(t), 0
	for _, command := range parser.Model.Leaves(true) {
		name := strings.Join(words(command), " ")
		for _, flag := range command.Flags {
			of := flag.Target.Type()
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if of != reflect.TypeFor[time.Duration]() {
				if flag.PlaceHolder == "DURATION" {
					t.Errorf("%s --%s is a duration and not a time.Duration", name, flag.Name)
				}
				continue
			}
			found++
			for value, want := range map[string]string{
				"5":   `--` + flag.Name + `: "5" is no duration: write it with a unit, as 5s, 2m30s, 1h or 30d`,
				"-3s": `--` + flag.Name + `: "-3s" is no duration: none is below zero; write it`,
				"abc": `--` + flag.Name + `: "abc" is no duration: write it`,
			} {
				_, err := parser.Parse(slices.Concat(words(command), []string{"--" + flag.Name, value}))
				if err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("%s --%s %s: %v", name, flag.Name, value, err)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d durations are there", found)
	}
}

// says are the commands whose output is no listing and no page: names, ids or a sentence about what was ordered, and
// what is written by others. A new command that shows anything has -o json and yaml, and no place here.
var says = []string{
	"service create", "service scale", "service rollback", "service pause", "service resume", "service abort", "service promote", "service rm",
	"node update", "node drain", "node stop-tasks", "node pause", "node activate", "node rotate-key", "node rm", "network create", "network rm", "manager rm",
	"cluster init", "cluster update", "cluster join", "cluster leave", "cluster unlock", "cluster restore", "cluster recover", "cluster backup save", "cluster ca rotate",
	"user create", "user rm", "context use", "context import", "context export", "context rm",
	"context current",          // a name alone
	"debug bundle",             // what it has written
	"completion", "__complete", // for shells
}

// shows are the commands that show something, each with arguments to show it of, and the keys that its JSON has, of
// an array those of its elements.
var shows = map[string][]string{
	"service ls":            {"", "service", "progress"},
	"service logs":          {"web", "time", "service", "task", "taskId", "node", "stream", "line"},
	"task logs":             {"web.1", "time", "service", "task", "taskId", "node", "stream", "line"},
	"service ps":            {"web", "task", "nodeHostname", "image"},
	"service inspect":       {"web", "service", "progress"},
	"service describe":      {"web", "service", "progress"},
	"service history":       {"web", "revision"},
	"service diff":          {"web", "service", "from", "to", "changes"},
	"service rebalance":     {"-dq web", "service", "id", "moving"},
	"service update":        {"--dry-run --image app:9 web", "service", "plan"},
	"task ls":               {"", "task", "nodeHostname", "image"},
	"task inspect":          {"web.1", "entry", "spec"},
	"task describe":         {"web.1", "entry", "spec"},
	"node ls":               {"", "node"},
	"node ps":               {"n1", "task", "nodeHostname", "image"},
	"node inspect":          {"n1", "node"},
	"node describe":         {"n1", "node"},
	"network ls":            {"", "network"},
	"network inspect":       {"default", "network"},
	"network describe":      {"default", "network"},
	"network check":         {"", "hostname", "pings"},
	"cluster info":          {"", "cluster", "managers", "nodes"},
	"cluster join-token":    {"worker", "token", "expiresAt"},
	"cluster unlock-key":    {"", "key"},
	"cluster backup verify": {"BACKUP", "clusterName", "sha256", "encrypted"},
	"cluster ca ls":         {"", "digest", "certificate"},
	"cluster ca show":       {"", "digest", "certificate"},
	"manager ls":            {"", "id", "addr"},
	"user ls":               {"", "meta", "role"},
	"context ls":            {"", "name"},
	"context show":          {"local", "name"},
	"why service":           {"web", "object", "name", "wanted"},
	"why task":              {"web.1", "object", "name", "wanted"},
	"why node":              {"n1", "object", "name", "wanted"},
	"why any":               {"web", "object", "name", "wanted"},
	"events":                {"--filter type=service", "index", "time", "object", "objectId", "objectName", "action"},
	"version":               {"", "client", "manager", "cluster"},
	"top":                   {"", "nodeId", "hostname", "usage"},
	"system info":           {"", "name", "versions", "managers", "nodes", "tasks", "warnings"},
	"system df":             {"", "nodeId", "hostname", "disk"},
	"system prune":          {"--dry-run", "nodeId", "hostname", "pruned"},
}

func TestEverythingThatIsShownIsShownToProgramsToo(t *testing.T) {
	for _, c := range model(t).Model.Leaves(false) {
		name := strings.Join(words(c), " ")
		of := slices.IndexFunc(c.Flags, func(f *kong.Flag) bool { return f.Name == "output" })
		switch {
		case slices.Contains(says, name):
			continue
		case shows[name] == nil:
			t.Errorf("%s is neither among the commands that show something for programs nor among those that only say what they did", name)
		case of < 0 || c.Flags[of].Short != 'o':
			t.Errorf("%s has no -o", name)
		default:
			for _, form := range []string{"json", "yaml"} {
				if !slices.Contains(strings.Split(c.Flags[of].Enum, ","), form) {
					t.Errorf("%s has no -o %s", name, form)
				}
			}
		}
	}
}

func TestWhatIsShownToProgramsCanBeReadAndHasItsKeys(t *testing.T) {
	dir, err := os.MkdirTemp("", "model") //nolint:usetesting // short: it becomes a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t.Setenv("WARREN_SOCKET", filepath.Join(dir, "m.sock"))
	t.Setenv("WARREN_RESOLVE_IMAGE", "never")
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	m, err := fakemanager.Start(filepath.Join(dir, "m.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	backup := filepath.Join(dir, "backup")
	do := func(line ...string) []byte {
		t.Helper()
		var out, said bytes.Buffer
		streams := &output.Streams{In: strings.NewReader(""), Out: output.Stream{Writer: &out}, Err: output.Stream{Writer: &said}, Now: time.Now}
		c := &cli{}
		parsed, err := newParser(t.Context(), c, streams, func(int) {}).Parse(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			return nil
		}
		s := &command.Session{Streams: streams, Connection: c.Connection}
		if err = s.Connect(parsed); err == nil {
			err = parsed.Run(s)
			s.Close()
		}
		if err != nil {
			t.Errorf("%q: %v\n%s", line, err, said.Bytes())
		}
		return out.Bytes()
	}
	do("cluster", "init", "--autolock")
	do("service", "create", "-dq", "--name", "web", "--replicas", "2", "app:1")
	do("service", "update", "-dq", "--image", "app:2", "web")
	m.Write("web.1", warrenv1.OutputStream_OUTPUT_STREAM_STDOUT, "a line", time.Unix(1000, 0))
	do("user", "create", "anna", "--role", "viewer", "-o", filepath.Join(dir, "anna.yaml"))
	do("context", "import", filepath.Join(dir, "anna.yaml"), "--name", "anna")
	do("cluster", "backup", backup)
	for _, name := range slices.Sorted(maps.Keys(shows)) {
		args := strings.Fields(strings.ReplaceAll(shows[name][0], "BACKUP", backup))
		line := strings.Fields(strings.TrimSuffix(name, " any"))
		for form, read := range map[string]func([]byte) ([]any, error){"json": readJSON, "yaml": readYAML} {
			out := do(slices.Concat(line, []string{"-o", form}, args)...)
			documents, err := read(out)
			if err != nil || len(documents) == 0 {
				t.Errorf("%s -o %s: %v in\n%s", name, form, err, out)
				continue
			}
			for _, key := range shows[name][1:] {
				if fields, ok := documents[0].(map[string]any); !ok || fields[key] == nil {
					t.Errorf("%s -o %s has no %s:\n%s", name, form, key, out)
				}
			}
		}
	}
}

// readJSON returns the documents of JSON text, and of an array its elements.
func readJSON(text []byte) ([]any, error) { return read(json.NewDecoder(bytes.NewReader(text))) }

func readYAML(text []byte) ([]any, error) { return read(yaml.NewDecoder(bytes.NewReader(text))) }

func read(from interface{ Decode(into any) error }) (all []any, err error) {
	for {
		var one any
		switch err := from.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("after %d documents: %w", len(all), err)
		}
		if list, ok := one.([]any); ok {
			all = append(all, list...)
			continue
		}
		all = append(all, one)
	}
}
