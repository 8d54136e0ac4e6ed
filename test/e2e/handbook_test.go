//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/cuemby/warren/test/image"
	"github.com/cuemby/warren/test/machine"
)

const gettingStarted = "../../docs/getting-started.md"

// step is a block of commands of the page, as the comment at its top says.
type step struct {
	line     int
	machines []string
	exit     string
	commands string
	shows    string // nothing where the page does not say
}

var (
	where = regexp.MustCompile(`^On (each machine|the (?:first|second|third)(?: and the (?:second|third))? machine)(?:, with exit code (\d+))?:$`)
	named = []struct{ word, name string }{{"first", "m1"}, {"second", "m2"}, {"third", "m3"}}
)

// steps reads a page.
func steps(page string) []step {
	var all []step
	lines := strings.Split(page, "\n")
	for i := range lines {
		told := where.FindStringSubmatch(lines[i])
		shows := lines[i] == "That shows:"
		if told == nil && !shows || i+2 >= len(lines) || !strings.HasPrefix(lines[i+2], "```") {
			continue
		}
		length := slices.Index(lines[i+3:], "```")
		block := strings.Join(lines[i+3:i+3+length], "\n")
		if shows {
			all[len(all)-1].shows = block
			continue
		}
		s := step{line: i + 1, exit: told[2], commands: block}
		for _, n := range named {
			if told[1] == "each machine" || strings.Contains(told[1], n.word) {
				s.machines = append(s.machines, n.name)
			}
		}
		all = append(all, s)
	}
	return all
}

// TestGettingStarted does what the page says, on machines that have nothing but what it asks for, and sees what it shows. An
// image of nginx cannot be had here: another program stands in for it under its name.
func TestGettingStarted(t *testing.T) {
	page, err := os.ReadFile(gettingStarted)
	if err != nil {
		t.Fatal(err)
	}
	ctx, _ := prepare(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(ctx, storyAtMost)
	defer cancel()
	lab, err := machine.NewLab(ctx, machine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			logJournals(ctx, t, lab)
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	pushAsNginx(ctx, t, lab)
	r := reader{t: t, lab: lab}
	for _, name := range []string{"m1", "m2", "m3"} {
		r.prepare(ctx, name)
	}
	all := steps(string(page))
	if len(all) < 20 {
		t.Fatalf("only %d blocks of commands were found", len(all))
	}
	for _, s := range all {
		if !r.do(ctx, s) {
			return
		}
	}
}

func pushAsNginx(ctx context.Context, t *testing.T, lab *machine.Lab) {
	t.Helper()
	images, err := image.Build(ctx, "1", "2")
	if err != nil {
		t.Fatal(err)
	}
	for tag, built := range map[string]v1.Image{"1.27": images["1"], "1.28": images["2"]} {
		file, err := built.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config := file.Config
		config.Env = append(slices.Clone(config.Env), "PORT=80")
		onPort80, err := mutate.Config(built, config)
		if err == nil {
			err = image.Push(ctx, onPort80, lab.Registry()+"/nginx:"+tag, lab.RegistryTransport())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// reader follows a page.
type reader struct {
	t     *testing.T
	lab   *machine.Lab
	token string // the last that was printed
}

// prepare boots a machine with the packages in root's folder, whose agent may pull by plain HTTP.
func (r *reader) prepare(ctx context.Context, name string) {
	r.t.Helper()
	if _, err := r.lab.BootAll(ctx, name); err != nil {
		r.t.Fatal(err)
	}
	m := r.lab.Machine(name)
	debs, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil || len(debs) == 0 {
		r.t.Fatalf("run \"make test-packages\" first: %v", err)
	}
	for _, deb := range debs {
		if err := copyProgram(m.HostPath("/root/"+filepath.Base(deb)), deb); err != nil {
			r.t.Fatal(err)
		}
	}
	dropIn := m.HostPath("/etc/systemd/system/warren-agent.service.d")
	if err := os.MkdirAll(dropIn, 0o755); err != nil {
		r.t.Fatal(err)
	}
	setting := "[Service]\nEnvironment=WARREN_AGENT_INSECURE_REGISTRY=" + r.lab.Registry() + "\n"
	if err := os.WriteFile(filepath.Join(dropIn, "registry.conf"), []byte(setting), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

var printedToken = regexp.MustCompile(`WRNTKN-1-\S+`)

// do does a step on all its machines, and tells whether it went as the page says.
func (r *reader) do(ctx context.Context, s step) bool {
	first := r.lab.Machine("m1").IP().String()
	here := strings.NewReplacer("10.0.0.1", first, "WRNTKN-1-…", r.token, "nginx:", r.lab.Registry()+"/nginx:", "-x nginx", "-x hello")
	for _, name := range s.machines {
		script := fmt.Sprintf("cd /root; export DEBIAN_FRONTEND=noninteractive; set -e\nexec 2>&1\n%s\n", here.Replace(s.commands))
		if s.exit != "" {
			script = fmt.Sprintf("cd /root; exec 2>&1\n%s\nstatus=$?; [ $status = %s ] || { echo ended with $status; exit 1; }\n", here.Replace(s.commands), s.exit)
		}
		out, err := r.lab.Machine(name).Run(ctx, "sh", "-c", script)
		r.t.Logf("line %d, on %s:\n%s\n%s", s.line, name, here.Replace(s.commands), out)
		if err != nil {
			r.t.Errorf("line %d, on %s: %v", s.line, name, err)
			return false
		}
		wanted := strings.NewReplacer("10.0.0.1", first, "nginx:", r.lab.Registry()+"/nginx:").Replace(s.shows)
		if s.shows != "" && !shown(wanted).MatchString(blanks.ReplaceAllString(out, " ")) {
			r.t.Errorf("line %d, on %s: the page shows\n%s", s.line, name, wanted)
			return false
		}
		if token := printedToken.FindString(out); token != "" {
			r.token = token
		}
	}
	return true
}

var (
	blanks = regexp.MustCompile(`\s+`)
	times  = regexp.MustCompile(`\d+(\\\.\d+)?ms`)
)

// shown matches what the page says a command prints.
func shown(text string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(strings.TrimSpace(blanks.ReplaceAllString(text, " ")))
	pattern = times.ReplaceAllString(pattern, `[0-9.]+(ms|µs|s)`)
	pattern = strings.ReplaceAll(pattern, "…", `.*`)
	return regexp.MustCompile(`^\s*` + pattern + `\s*$`)
}
