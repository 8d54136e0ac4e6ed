//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
	"github.com/cuemby/warren/test/machine"
)

// Bounds far above what it takes, so that a loaded host fails no test.
const (
	storyAtMost    = 10 * time.Minute
	journalsAtMost = 10 * time.Second
)

// story is one script's machines and what runs in the background of it.
type story struct {
	ctx        context.Context
	lab        *machine.Lab
	background map[string]*background
}

type storyKey struct{}

// newStory gives a script a lab, whose registry has the test image, and the means to end it well.
func newStory(ctx context.Context, env *testscript.Env, binDir string, images versions) error {
	ctx, cancel := context.WithTimeout(ctx, storyAtMost)
	lab, err := machine.NewLab(ctx, machine.Options{BinDir: binDir})
	if err != nil {
		cancel()
		return err
	}
	s := &story{ctx: ctx, lab: lab, background: map[string]*background{}}
	env.Values[storyKey{}] = s
	env.Defer(func() {
		defer cancel()
		s.end(env.T())
	})
	for version, built := range images {
		if err := image.Push(ctx, built, lab.Registry()+"/hello:"+version, lab.RegistryTransport()); err != nil {
			return err
		}
	}
	env.Setenv("REGISTRY", lab.Registry())
	env.Setenv("HELLO", lab.Registry()+"/hello")
	return nil
}

// end looks for leftovers where the story went well, tells what the daemons said where it did not,
// and takes the machines away.
func (s *story) end(t testscript.T) {
	wentWell := true
	if test, ok := t.(interface{ Failed() bool }); ok {
		wentWell = !test.Failed()
	}
	var left error
	if wentWell {
		left = s.leftovers()
	}
	if left != nil {
		t.Log(left) // once more at the end, after much else
	}
	if !wentWell || left != nil {
		logJournals(s.ctx, t, s.lab)
	}
	for _, b := range s.background {
		b.cancel()
		<-b.done
	}
	if err := errors.Join(left, s.lab.Close()); err != nil {
		t.Fatal(err)
	}
}

// leftovers has the cluster, where there is one, remove its services, and fails with a list of what
// then is left on the machines that are on.
func (s *story) leftovers() error {
	machines := slices.DeleteFunc(s.lab.Machines(), func(m *machine.Machine) bool { return m.Leader() == 0 })
	if len(machines) == 0 {
		return nil
	}
	const removeAll = `systemctl is-active --quiet ` + cluster.ManagerUnit + ` || exit 0
		services=$(warrenctl service ls -q); [ -z "$services" ] || warrenctl service rm $services`
	for _, m := range machines {
		if _, err := m.Run(s.ctx, "sh", "-ec", removeAll); err != nil {
			return err
		}
	}
	return s.awaitClean(machines, "")
}

// awaitClean fails with a list of what is left on machines, of whatever kind but one.
func (s *story) awaitClean(machines []*machine.Machine, but string) error {
	return cluster.Await(s.ctx, "the machines to be clean", func(ctx context.Context) error {
		var left []error
		for _, m := range machines {
			found, err := m.Leftovers(ctx)
			left = append(left, err)
			for _, line := range found {
				if kind, _, _ := strings.Cut(line, " "); kind != but {
					left = append(left, fmt.Errorf("left on %s: %s", m.Name(), line))
				}
			}
		}
		return errors.Join(left...)
	})
}

// logJournals tells what the daemons of all machines said last.
func logJournals(ctx context.Context, t interface{ Log(args ...any) }, lab *machine.Lab) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalsAtMost)
	defer cancel()
	for _, m := range lab.Machines() {
		for _, unit := range []string{cluster.ManagerUnit, cluster.AgentUnit} {
			journal, err := m.Journal(ctx, unit, 60)
			if err == nil && !strings.Contains(journal, "-- No entries --") {
				t.Log(fmt.Sprintf("%s on %s:\n%s", unit, m.Name(), journal))
			}
		}
	}
}

func (s *story) machine(name string) (*machine.Machine, error) {
	if m := s.lab.Machine(name); m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("there is no machine %q", name)
}

// background is a command that runs beside the script.
type background struct {
	command *exec.Cmd
	output  *output
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of the command, once done is closed
}

func (s *story) startBackground(m *machine.Machine, args []string) (*background, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	b := &background{command: m.Command(ctx, args...), output: &output{}, cancel: cancel, done: make(chan struct{})}
	b.command.Stdout, b.command.Stderr = b.output, b.output
	if err := b.command.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(b.done)
		b.err = b.command.Wait()
	}()
	return b, nil
}

// names lists the background commands, for a message.
func (s *story) names() []string { return slices.Sorted(maps.Keys(s.background)) }

// output is what a background command has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
