//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/image"
	"github.com/cuemby/warren/test/machine"
)

// demo is a cluster being shown.
type demo struct {
	lab        *machine.Lab
	machines   []*machine.Machine
	repository string // the folder of an apt repository
	image      string
	out        io.Writer
	colour     bool
}

// installQuietly is the command that installs a package without telling of each file.
func installQuietly(name string) string { return "apt-get install -qq -y " + name + " >/dev/null" }

var errInterrupted = errors.New("interrupted: everything is removed again")

// show tells the whole story and takes everything away again, also when it is interrupted.
func show(ctx context.Context, repository string) error {
	d, err := newDemo(ctx, repository)
	if err != nil {
		return err
	}
	err = d.tell(ctx, d.start, d.run, d.crash, d.lead, d.remove)
	return errors.Join(err, d.lab.Close())
}

// draw tells the story as show does, and writes a picture of it to a file.
func draw(ctx context.Context, repository, to string) error {
	d, err := newDemo(ctx, repository)
	if err != nil {
		return err
	}
	recorded := &recorder{now: time.Now}
	d.out, d.colour = io.MultiWriter(os.Stdout, recorded), true
	err = errors.Join(d.tell(ctx, d.start, d.run, d.crash, d.lead, d.remove), d.lab.Close())
	if err == nil {
		err = os.WriteFile(to, []byte(picture(recorded.lines)), 0o644)
	}
	return err
}

func newDemo(ctx context.Context, repository string) (*demo, error) {
	if _, err := os.Stat(repository); err != nil {
		return nil, fmt.Errorf("run \"make demo\", which makes the packages first: %w", err)
	}
	lab, err := machine.NewLab(ctx, machine.Options{})
	if err != nil {
		return nil, err
	}
	colour := term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""
	return &demo{lab: lab, repository: repository, out: os.Stdout, colour: colour, image: lab.Registry() + "/hello:1"}, nil
}

// tell tells the chapters of the story one after the other.
func (d *demo) tell(ctx context.Context, chapters ...func(context.Context) error) error {
	for _, chapter := range chapters {
		if err := chapter(ctx); err != nil {
			if ctx.Err() != nil {
				return errInterrupted // and so was the command that failed
			}
			return err
		}
	}
	return nil
}

// start boots three machines and makes a cluster of them, from packages.
func (d *demo) start(ctx context.Context) error {
	d.heading("Three machines, each with its own systemd, containerd, network and disk")
	if err := d.boot(ctx, "m1", "m2", "m3"); err != nil {
		return err
	}
	m1 := d.machines[0]

	d.heading("A registry with an image of a small HTTP server, built from test/image")
	images, err := image.Build(ctx, "1")
	if err != nil {
		return err
	}
	if err := image.Push(ctx, images["1"], d.image, d.lab.RegistryTransport()); err != nil {
		return err
	}
	fmt.Fprintln(d.out, d.image)

	d.heading("An apt repository of Warren's packages, as \"make apt-repo\" makes it, on every machine")
	for _, m := range d.machines {
		if err := cluster.AddRepository(ctx, m, d.repository); err != nil {
			return err
		}
	}
	if err := d.on(ctx, m1, "cat /etc/apt/sources.list"); err != nil {
		return err
	}

	d.heading("A manager on the first machine, made a cluster")
	if err := d.onAll(ctx, m1, installQuietly("warren-manager"), "warrenctl cluster init"); err != nil {
		return err
	}

	d.heading("An agent on every machine, which joins with the token")
	token, err := cluster.JoinToken(ctx, m1, "worker")
	if err != nil {
		return err
	}
	for _, m := range d.machines {
		// The registry of the demo speaks plain HTTP, which an agent has to be told.
		if err := d.onAll(ctx, m,
			installQuietly("warren-agent"),
			"echo 'insecure-registry: ["+d.lab.Registry()+"]' >>/etc/warren/agent.yaml && systemctl restart warren-agent",
			"warrenctl cluster join --token "+token+" "+cluster.Addr(m1),
		); err != nil {
			return err
		}
	}
	if err := cluster.AwaitNodes(ctx, m1, len(d.machines)); err != nil {
		return err
	}
	return d.on(ctx, m1, "warrenctl node ls")
}

// run runs a service of six tasks.
func (d *demo) run(ctx context.Context) error {
	m1 := d.machines[0]
	d.heading("Six replicas of a service")
	return d.onAll(ctx, m1,
		"warrenctl service create --name web --replicas 6 "+d.image,
		"warrenctl service ls",
		"warrenctl service ps web",
		"warrenctl service logs web --tail 5",
	)
}

// crash kills a container behind Warren's back.
func (d *demo) crash(ctx context.Context) error {
	m1, m2 := d.machines[0], d.machines[1]
	d.heading("A container is killed, and replaced")
	before, err := pids(ctx, m2)
	if err != nil {
		return err
	}
	if err := d.on(ctx, m2, "pkill --signal KILL --oldest --exact hello"); err != nil {
		return err
	}
	killed := time.Now()
	if err := awaitOthers(ctx, m2, before); err != nil {
		return err
	}
	d.remark("a new process runs %s after the kill", time.Since(killed).Round(time.Millisecond))
	if err := awaitOutput(ctx, m1, regexp.MustCompile(`web\s.*6/6`), "warrenctl", "service", "ls"); err != nil {
		return err
	}
	return d.onAll(ctx, m1, "warrenctl service ps web", "warrenctl service scale web=2", "warrenctl service ps web")
}

// lead makes the other machines managers too, and kills the one that leads.
func (d *demo) lead(ctx context.Context) error {
	m1, others := d.machines[0], d.machines[1:]
	d.heading("Two more managers, so that any one may be lost")
	token, err := cluster.JoinToken(ctx, m1, "manager")
	if err != nil {
		return err
	}
	for _, m := range others {
		if err := d.onAll(ctx, m, installQuietly("warren-manager"), "warrenctl cluster join --token "+token+" "+cluster.Addr(m1)); err != nil {
			return err
		}
	}
	if err := d.on(ctx, m1, "warrenctl manager ls"); err != nil {
		return err
	}
	d.heading("The leader is killed, and nobody waits for it")
	if err := d.on(ctx, m1, "systemctl kill --signal KILL "+cluster.ManagerUnit); err != nil {
		return err
	}
	killed := time.Now()
	if err := d.on(ctx, others[0], "warrenctl service scale --detach web=3"); err != nil {
		return err
	}
	d.remark("written %s after the kill", time.Since(killed).Round(time.Millisecond))
	if err := d.onAll(ctx, others[1], "warrenctl manager ls", "warrenctl service ls"); err != nil {
		return err
	}
	return d.on(ctx, m1, "systemctl start "+cluster.ManagerUnit)
}

// remove removes the service.
func (d *demo) remove(ctx context.Context) error {
	d.heading("The service is removed, with all of it")
	if err := d.onAll(ctx, d.machines[0], "warrenctl service rm web", "warrenctl service ls"); err != nil {
		return err
	}
	for _, m := range d.machines {
		left, err := m.Leftovers(ctx)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("the service is removed, but %s still has:\n%s", m.Name(), strings.Join(left, "\n"))
		}
	}
	d.remark("no container, snapshot, process, mount or cgroup of it is left on any machine")
	return nil
}

func (d *demo) boot(ctx context.Context, names ...string) error {
	started := time.Now()
	machines, err := d.lab.BootAll(ctx, names...)
	if err != nil {
		return err
	}
	d.machines = machines
	for _, m := range d.machines {
		fmt.Fprintf(d.out, "%s %s\n", m.Name(), m.IP())
	}
	d.remark("all booted after %s", time.Since(started).Round(time.Millisecond))
	return nil
}

// on types one command on a machine and shows what it prints.
func (d *demo) on(ctx context.Context, m *machine.Machine, line string) error {
	fmt.Fprintf(d.out, "%s %s\n", d.paint("32", m.Name()+" #"), d.paint("1", line))
	command := m.Command(ctx, "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", line)
	command.Stdout, command.Stderr = d.out, d.out
	started := time.Now()
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s on %s: %w", line, m.Name(), err)
	}
	if took := time.Since(started); took > 50*time.Millisecond {
		d.remark("%s", took.Round(time.Millisecond))
	}
	return nil
}

func (d *demo) onAll(ctx context.Context, m *machine.Machine, lines ...string) error {
	for _, line := range lines {
		if err := d.on(ctx, m, line); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) heading(text string) { fmt.Fprintf(d.out, "\n%s\n", d.paint("36", "── "+text)) }

func (d *demo) remark(format string, args ...any) {
	fmt.Fprintln(d.out, d.paint("2", "("+fmt.Sprintf(format, args...)+")"))
}

func (d *demo) paint(code, text string) string {
	if !d.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// pids lists the service's processes on a machine.
func pids(ctx context.Context, m *machine.Machine) ([]string, error) {
	output, err := m.Command(ctx, "pgrep", "--exact", "hello").Output()
	if _, none := errors.AsType[*exec.ExitError](err); err != nil && !none {
		return nil, err
	}
	return strings.Fields(string(output)), nil
}

// awaitOthers returns when a machine has as many of the service's processes as before, and they are
// not all the same.
func awaitOthers(ctx context.Context, m *machine.Machine, before []string) error {
	return cluster.Await(ctx, "a replacement of the killed container", func(ctx context.Context) error {
		now, err := pids(ctx, m)
		if err == nil && (len(now) != len(before) || slices.Equal(now, before)) {
			err = fmt.Errorf("the processes are %v, and were %v before the kill", now, before)
		}
		return err
	})
}

func awaitOutput(ctx context.Context, m *machine.Machine, wanted *regexp.Regexp, command ...string) error {
	return cluster.Await(ctx, wanted.String(), func(ctx context.Context) error {
		output, err := m.Run(ctx, command...)
		if err == nil && !wanted.MatchString(output) {
			err = errors.New(output)
		}
		return err
	})
}
