//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sync/errgroup"

	"github.com/cuemby/warren/test/image"
	"github.com/cuemby/warren/test/machine"
)

// step is a block of commands of a page, and where it is run: docs/getting-started.md says in a comment at its top how that is told.
type step struct {
	line     int
	machines []string
	exit     string
	commands string
	shows    string // nothing where the page does not say
}

var (
	where = regexp.MustCompile(`^On (each machine|your own machine|the (?:first|second|third)(?: and the (?:second|third))? machine)(?:, with exit code (\d+))?:$`)
	named = []struct{ word, name string }{{"first", "m1"}, {"second", "m2"}, {"third", "m3"}, {"own", "own"}}
)

// steps reads a page. No block of it may be left out: the page says where it is run, or it is one of those that are run elsewhere.
func steps(page string, elsewhere []string) ([]step, error) {
	var all []step
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		if strings.HasPrefix(lines[i], "    ") && i > 0 && lines[i-1] == "" {
			return nil, fmt.Errorf("line %d: a block without a fence, which nothing runs", i+1)
		}
		if !strings.HasPrefix(lines[i], "```") {
			continue
		}
		begun, length := i+1, slices.Index(lines[i+1:], "```")
		if length < 0 {
			return nil, fmt.Errorf("line %d: a block without an end", begun)
		}
		block := strings.Join(lines[begun:begun+length], "\n")
		i = begun + length
		said := lines[max(begun-3, 0)]
		told := where.FindStringSubmatch(said)
		switch {
		case told != nil:
			s := step{line: begun, exit: told[2], commands: block}
			for _, n := range named {
				if told[1] == "each machine" && n.name != "own" || strings.Contains(told[1], n.word) {
					s.machines = append(s.machines, n.name)
				}
			}
			all = append(all, s)
		case said == "That shows:" && len(all) > 0:
			all[len(all)-1].shows = block
		case !slices.Contains(elsewhere, block):
			return nil, fmt.Errorf("line %d: it is not said where this block is run:\n%s", begun, block)
		}
	}
	return all, nil
}

func TestAPageSaysWhereEachOfItsBlocksIsRun(t *testing.T) {
	const told = "On the second and the third machine, with exit code 3:\n\n```sh\na\nb\n```\n\nThat shows:\n\n```\nc\n```\n\nOn your own machine:\n\n```sh\nd\n```\n"
	all, err := steps(told+"\n```sh\nmake x\n```\n", []string{"make x"})
	want := []step{
		{line: 3, machines: []string{"m2", "m3"}, exit: "3", commands: "a\nb", shows: "c"},
		{line: 16, machines: []string{"own"}, commands: "d"},
	}
	if err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("got %+v, %v", all, err)
	}
	for what, page := range map[string]string{
		"nothing":            "Then:\n\n```sh\ne\n```\n",
		"no such machine":    "On the fourth machine:\n\n```sh\ne\n```\n",
		"a block in no form": "On each machine:\n\n    e\n",
		"no end":             "On each machine:\n\n```sh\ne\n",
	} {
		if _, err := steps(told+page, nil); err == nil {
			t.Errorf("a page was taken that says of a block %s", what)
		}
	}
}

// TestGettingStarted does what the page says, on machines that have nothing but what it asks for, and sees what it shows.
func TestGettingStarted(t *testing.T) {
	follow(t, "../../docs/getting-started.md", 20,
		"apt install warren-manager warren-agent warrenctl", // by TestPackages
	)
}

// TestReadme does what the page says, from its packages to a service on three machines, asked for from a fourth.
func TestReadme(t *testing.T) {
	follow(t, "../../README.md", 10,
		"make demo    # three machines on this one, a real cluster, real containers; under a minute the second time\n"+ // by `make picture`
			"make test    # everything that is tested", // which runs this
	)
}

// follow does what a page says. An image of nginx cannot be had here: another program stands in for it under its name.
func follow(t *testing.T, path string, atLeast int, elsewhere ...string) {
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := steps(string(page), elsewhere)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(all) < atLeast {
		t.Fatalf("%s: only %d blocks of commands were found", path, len(all))
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
	r := reader{t: t, lab: lab, path: path}
	r.prepare(ctx, all)
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
	path  string
	token string // the last that was printed
}

// prepare boots the machines that the page speaks of. They have an archive of packages with nothing new in it. The three that are to be a
// cluster have agents that may pull by plain HTTP; unless a page says how the packages come to them, they are there.
func (r *reader) prepare(ctx context.Context, all []step) {
	r.t.Helper()
	var names []string
	for _, n := range named {
		if slices.ContainsFunc(all, func(s step) bool { return slices.Contains(s.machines, n.name) }) {
			names = append(names, n.name)
		}
	}
	machines, err := r.lab.BootAll(ctx, names...)
	if err != nil {
		r.t.Fatal(err)
	}
	brings := slices.Contains(names, "own")
	for i, m := range machines {
		files := map[string]string{
			"/etc/apt/sources.list": "",
			"/etc/systemd/system/warren-agent.service.d/registry.conf": "[Service]\nEnvironment=WARREN_AGENT_INSECURE_REGISTRY=" + r.lab.Registry() + "\n",
		}
		for path, text := range files {
			if err := os.MkdirAll(filepath.Dir(m.HostPath(path)), 0o755); err != nil {
				r.t.Fatal(err)
			}
			if err := os.WriteFile(m.HostPath(path), []byte(text), 0o644); err != nil {
				r.t.Fatal(err)
			}
		}
		switch {
		case !brings:
			err = putPackages(m.HostPath("/root"))
		case names[i] == "own":
			err = putWhatIsMade(m.HostPath("/root"))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// putWhatIsMade has a folder hold what "make packages" leaves: packages in dist, and of the programs in bin the one for users.
func putWhatIsMade(folder string) error {
	dist, bin := filepath.Join(folder, "dist"), filepath.Join(folder, "bin")
	if err := errors.Join(os.Mkdir(dist, 0o755), os.Mkdir(bin, 0o755)); err != nil {
		return err
	}
	return errors.Join(putPackages(dist), copyProgram(filepath.Join(bin, "warrenctl"), filepath.Join(built, "warrenctl")))
}

// putPackages copies the packages into a folder, which "make test-packages" has made as "make packages" makes them.
func putPackages(folder string) error {
	debs, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("run \"make test-packages\" first: %w", errors.Join(err, os.ErrNotExist))
	}
	for _, deb := range debs {
		if err := copyProgram(filepath.Join(folder, filepath.Base(deb)), deb); err != nil {
			return err
		}
	}
	return nil
}

var printedToken = regexp.MustCompile(`WRNTKN-1-\S+`)

// do does a step on all its machines, on "each machine" at once, and tells whether it went as the page says.
func (r *reader) do(ctx context.Context, s step) bool {
	addresses := r.addresses()
	here := strings.NewReplacer(append(addresses, "WRNTKN-1-…", r.token, "nginx:", r.lab.Registry()+"/nginx:", "-x nginx", "-x hello", "_amd64", "_"+runtime.GOARCH)...)
	commands := here.Replace(s.commands)
	outs, errs := make([]string, len(s.machines)), make([]error, len(s.machines))
	var group errgroup.Group
	if len(s.machines) < 3 {
		group.SetLimit(1)
	}
	for i, name := range s.machines {
		group.Go(func() error {
			outs[i], errs[i] = r.run(ctx, r.lab.Machine(name), commands, s.exit)
			return errs[i]
		})
	}
	_ = group.Wait() // what failed is told with its machine
	for i, name := range s.machines {
		out, err := outs[i], errs[i]
		r.t.Logf("%s:%d, on %s:\n%s\n%s", r.path, s.line, name, commands, out)
		if err != nil {
			r.t.Errorf("%s:%d, on %s: %v", r.path, s.line, name, err)
			return false
		}
		wanted := strings.NewReplacer(append(addresses, "nginx:", r.lab.Registry()+"/nginx:")...).Replace(s.shows)
		if s.shows != "" && !shown(wanted).MatchString(blanks.ReplaceAllString(out, " ")) {
			r.t.Errorf("%s:%d, on %s: the page shows\n%s", r.path, s.line, name, wanted)
			return false
		}
		if token := printedToken.FindString(out); token != "" {
			r.token = token
		}
	}
	return true
}

// addresses are those of the page with those of the machines.
func (r *reader) addresses() []string {
	var pairs []string
	for i, name := range []string{"m1", "m2", "m3"} {
		if m := r.lab.Machine(name); m != nil {
			pairs = append(pairs, fmt.Sprintf("10.0.0.%d", i+1), m.IP().String())
		}
	}
	return pairs
}

// run has a shell do what a block says, but for the lines that this test does itself: it copies between the machines' disks, as they have no
// ssh; the packages that make is told to make are there, made by the same recipe, and make is but asked whether it would.
func (r *reader) run(ctx context.Context, m *machine.Machine, commands, exit string) (out string, err error) {
	var waiting []string
	shell := func() error {
		if len(waiting) == 0 {
			return nil
		}
		script := "cd /root; export DEBIAN_FRONTEND=noninteractive; set -e; exec 2>&1\n" + strings.Join(waiting, "\n") + "\n"
		if exit != "" {
			script = fmt.Sprintf("cd /root; exec 2>&1\n%s\nstatus=$?; [ $status = %s ] || { echo ended with $status; exit 1; }\n", strings.Join(waiting, "\n"), exit)
		}
		waiting = nil
		said, err := m.Run(ctx, "sh", "-c", script)
		out += said
		return err
	}
	for line := range strings.Lines(commands) {
		words := strings.Fields(line)
		switch {
		case len(words) == 3 && words[0] == "scp":
			if err := shell(); err != nil {
				return out, err
			}
			if err := r.copy(m, words[1], words[2]); err != nil {
				return out, fmt.Errorf("%s: %w", line, err)
			}
		case len(words) > 1 && words[0] == "make" && words[1] == "packages":
			if said, err := exec.CommandContext(ctx, "make", append([]string{"-C", "../..", "--dry-run"}, words[1:]...)...).CombinedOutput(); err != nil {
				return out, fmt.Errorf("%s: %w\n%s", line, err, said)
			}
		default:
			waiting = append(waiting, strings.TrimSuffix(line, "\n"))
		}
	}
	return out, shell()
}

// copy does what scp does on a machine.
func (r *reader) copy(m *machine.Machine, from, to string) error {
	found, err := filepath.Glob(r.remote(m, from))
	if err == nil && len(found) == 0 {
		err = os.ErrNotExist
	}
	for _, file := range found {
		text, e := os.ReadFile(file)
		info, e2 := os.Stat(file)
		if err = errors.Join(err, e, e2); err != nil {
			return err
		}
		err = os.WriteFile(filepath.Join(r.remote(m, to), filepath.Base(file)), text, info.Mode())
	}
	return err
}

// remote is where on this host a path is that scp is given on a machine: there, or behind root@ADDRESS: on another.
func (r *reader) remote(m *machine.Machine, path string) string {
	if at, there, is := strings.Cut(strings.TrimPrefix(path, "root@"), ":"); is {
		for _, other := range []string{"m1", "m2", "m3"} {
			if o := r.lab.Machine(other); o != nil && o.IP().String() == at {
				return o.HostPath(filepath.Join("/root", there))
			}
		}
		return filepath.Join("/nowhere", path)
	}
	return m.HostPath(filepath.Join("/root", path))
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
