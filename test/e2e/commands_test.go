//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/machine"
)

// commands are what scripts can say beside testscript's own commands. $HELLO is the test image
// without its tag (:1 and :2 are two versions of it), $REGISTRY the registry that has it, $M1 the address
// of machine m1 once it has booted, and so on.
//
//	cluster [--FLAG=VALUE...] M...
//	                       boot machines; the first is the manager, its cluster initialised with the
//	                       flags; each runs an agent; wait until all nodes are ready
//	join M...              boot machines that run an agent of that cluster
//	managers M...          run a manager on machines that have booted, one after the other, each joining
//	                       the cluster
//	connect straight|ipv6|translated
//	                       connect the machines that are booted from now on by a plain cable, as they
//	                       are unless told otherwise; with IPv6 and no IPv4; or from behind a router
//	                       each that translates addresses, so that $M is one that others do not reach
//	machines M...          boot machines with no daemon running
//	agent M [--FLAG=VALUE...]
//	                       run an agent with these flags beside the usual ones, in place of one that
//	                       runs; it joins no cluster by itself unless they say so
//	share M PATH M PATH    copy a file from the first machine to the second
//	on M COMMAND...        run a command on a machine; stdout, stderr and ! work as for exec
//	exits N on M COMMAND...
//	                       run a command on a machine that ends with that exit status
//	in M TASK ARG...       run the image's program with these arguments inside the container of a task on
//	                       that machine, web.1 or any of web; "in M TASK" can stand wherever "on M" can,
//	                       and the arguments then in the place of a command
//	put FILE on M PATH     give a machine a file of the script
//	until RE on M COMMAND...
//	                       run a command on a machine until its output matches the regular
//	                       expression; it is then stdout. With "! until" until it does not match.
//	until RE*N ...         until it matches exactly N times
//	until RE within D on M COMMAND...
//	                       fail when that takes longer than the duration D
//	start NAME on M COMMAND...
//	                       run a command in the background, under a name of its own
//	until RE of NAME       wait until the output of a background command matches
//	finish NAME            wait for the end of a background command; its output becomes stdout
//	interrupt NAME         send a background command what Ctrl-C sends
//	unit kill|stop|start M UNIT
//	                       SIGKILL a service's main process, stop it in good order, start it
//	machine kill|boot|shutdown|partition|heal M
//	                       pull the plug, put it back, power off in good order, pull the network
//	                       cable, plug it in
//	clean M...             wait until nothing of any container is left on the machines, but the
//	                       output of tasks that are remembered
//	registry lock USER PASSWORD
//	                       have the registry ask for a name and a password
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"cluster":   tell(startCluster),
	"join":      tell(joinCluster),
	"managers":  tell(startManagers),
	"machines":  tell(func(s *story, args []string) error { _, err := s.lab.BootAll(s.ctx, args...); return err }),
	"agent":     tell(startAgent),
	"share":     tell(shareFile),
	"on":        runOn,
	"in":        runIn,
	"exits":     runExiting,
	"put":       putFile,
	"until":     runUntil,
	"start":     tell(startInBackground),
	"finish":    finish,
	"interrupt": tell(interrupt),
	"unit":      tell(changeUnit),
	"machine":   tell(changeMachine),
	"clean":     tell(awaitClean),
	"connect":   tell(connectBy),
	"registry":  tell(changeRegistry),
}

var errUsage = errors.New("wrong arguments: see the list of commands in test/e2e")

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// tell makes a script command of something that either succeeds or ends the script.
func tell(do func(*story, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command cannot be negated")
		}
		s := storyOf(ts)
		ts.Check(do(s, args))
		for _, m := range s.lab.Machines() {
			ts.Setenv(strings.ToUpper(m.Name()), m.IP().String())
		}
		ts.Setenv("REGISTRY", s.lab.Registry())
		ts.Setenv("HELLO", s.lab.Registry()+"/hello")
	}
}

func startCluster(s *story, args []string) error {
	names := slices.DeleteFunc(slices.Clone(args), isFlag)
	flags := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !isFlag(arg) })
	if len(names) == 0 {
		return errUsage
	}
	machines, err := s.lab.BootAll(s.ctx, names...)
	if err != nil {
		return err
	}
	return cluster.Start(s.ctx, s.lab.Registry(), flags, machines...)
}

func isFlag(arg string) bool { return strings.HasPrefix(arg, "--") }

func joinCluster(s *story, names []string) error {
	all := s.lab.Machines()
	if len(names) == 0 || len(all) == 0 {
		return errUsage
	}
	machines, err := s.lab.BootAll(s.ctx, names...)
	if err != nil {
		return err
	}
	return cluster.StartAgents(s.ctx, s.lab.Registry(), all[0], machines...)
}

func startManagers(s *story, names []string) error {
	all := s.lab.Machines()
	if len(names) == 0 || len(all) == 0 {
		return errUsage
	}
	for _, name := range names {
		m, err := s.machine(name)
		if err != nil {
			return err
		}
		if err := cluster.JoinManager(s.ctx, m, all[0]); err != nil {
			return err
		}
	}
	return nil
}

func startAgent(s *story, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	m, err := s.machine(args[0])
	if err != nil {
		return err
	}
	return cluster.StartAgent(s.ctx, m, s.lab.Registry(), args[1:]...)
}

func shareFile(s *story, args []string) error {
	if len(args) != 4 {
		return errUsage
	}
	from, err := s.machine(args[0])
	if err != nil {
		return err
	}
	to, err := s.machine(args[2])
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from.HostPath(args[1]))
	if err != nil {
		return err
	}
	return os.WriteFile(to.HostPath(args[3]), text, 0o600)
}

func runOn(ts *testscript.TestScript, neg bool, args []string) {
	status := runCommand(ts, args)
	switch {
	case status != 0 && !neg:
		ts.Fatalf("%s: exit status %d", strings.Join(args, " "), status)
	case status == 0 && neg:
		ts.Fatalf("%s: it succeeded", strings.Join(args, " "))
	}
}

func runIn(ts *testscript.TestScript, neg bool, args []string) {
	runOn(ts, neg, place(slices.Insert(args, 0, "in"))[1:])
}

func runExiting(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("%v", errUsage)
	}
	wanted, err := strconv.Atoi(args[0])
	ts.Check(err)
	if args = slices.Insert(place(args[1:]), 0, args[0]); args[1] != "on" {
		ts.Fatalf("%v", errUsage)
	}
	if status := runCommand(ts, args[2:]); status != wanted {
		ts.Fatalf("%s: exit status %d, not %d", strings.Join(args[2:], " "), status, wanted)
	}
}

// runCommand runs "M COMMAND..." and returns its exit status.
func runCommand(ts *testscript.TestScript, args []string) int {
	s := storyOf(ts)
	if len(args) < 2 {
		ts.Fatalf("%v", errUsage)
	}
	m, err := s.machine(args[0])
	ts.Check(err)
	command := m.Command(s.ctx, args[1:]...)
	command.Stdout, command.Stderr = ts.Stdout(), ts.Stderr()
	if err = command.Run(); err == nil {
		return 0
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	if !exited {
		ts.Fatalf("%v", err)
	}
	return exit.ExitCode()
}

func putFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 || args[1] != "on" {
		ts.Fatalf("%v", errUsage)
	}
	m, err := storyOf(ts).machine(args[2])
	ts.Check(err)
	path := m.HostPath(args[3])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, []byte(ts.ReadFile(args[0])), 0o600))
}

// pattern is a regular expression and how often it has to match: -1 is once or more.
type pattern struct {
	*regexp.Regexp
	times int
}

var timesSuffix = regexp.MustCompile(`^(.*)\*(\d+)$`)

func parsePattern(text string) (pattern, error) {
	p := pattern{times: -1}
	if parts := timesSuffix.FindStringSubmatch(text); parts != nil {
		times, err := strconv.Atoi(parts[2])
		if err != nil {
			return p, err
		}
		text, p.times = parts[1], times
	}
	var err error
	p.Regexp, err = regexp.Compile("(?m)" + text)
	return p, err
}

func (p pattern) matches(text string) bool {
	if p.times < 0 {
		return p.MatchString(text)
	}
	return len(p.FindAllStringIndex(text, -1)) == p.times
}

func runUntil(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if len(args) < 3 {
		ts.Fatalf("%v", errUsage)
	}
	wanted, err := parsePattern(args[0])
	ts.Check(err)
	wait, source := cluster.Await, args[1:]
	if source[0] == "within" && len(source) > 2 {
		atMost, err := time.ParseDuration(source[1])
		ts.Check(err)
		wait = func(ctx context.Context, what string, ask func(context.Context) error) error {
			return cluster.AwaitWithin(ctx, atMost, what, ask)
		}
		source = source[2:]
	}
	source = place(source)
	look, err := s.observer(source[0], source[1:])
	ts.Check(err)
	var seen string
	ts.Check(wait(s.ctx, args[0], func(ctx context.Context) error {
		if seen = look(ctx); wanted.matches(seen) == neg {
			return fmt.Errorf("the last output was:\n%s", seen)
		}
		return nil
	}))
	fmt.Fprint(ts.Stdout(), seen)
}

// observer makes a function that shows how things are now.
func (s *story) observer(source string, args []string) (func(context.Context) string, error) {
	switch {
	case source == "on" && len(args) >= 2:
		m, err := s.machine(args[0])
		return func(ctx context.Context) string {
			var output bytes.Buffer
			command := m.Command(ctx, args[1:]...)
			command.Stdout, command.Stderr = &output, &output
			if err := command.Run(); err != nil {
				fmt.Fprintln(&output, err)
			}
			return output.String()
		}, err
	case source == "of" && len(args) == 1:
		b, err := s.backgroundOf(args)
		return func(context.Context) string { return b.output.String() }, err
	}
	return nil, errUsage
}

func startInBackground(s *story, args []string) error {
	if len(args) < 4 {
		return errUsage
	}
	name := args[0]
	if args = slices.Insert(place(args[1:]), 0, name); args[1] != "on" {
		return errUsage
	}
	if slices.Contains(s.names(), name) {
		return fmt.Errorf("there is a background command %q", name)
	}
	m, err := s.machine(args[2])
	if err != nil {
		return err
	}
	b, err := s.startBackground(m, args[3:])
	if err != nil {
		return err
	}
	s.background[name] = b
	return nil
}

func (s *story) backgroundOf(args []string) (*background, error) {
	if len(args) != 1 {
		return nil, errUsage
	}
	b := s.background[args[0]]
	if b == nil {
		return nil, fmt.Errorf("there is no background command %q, only %q", args[0], s.names())
	}
	return b, nil
}

func finish(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	b, err := s.backgroundOf(args)
	ts.Check(err)
	ts.Check(cluster.Await(s.ctx, "the end of "+args[0], func(context.Context) error {
		select {
		case <-b.done:
			return nil
		default:
			return fmt.Errorf("so far it printed:\n%s", b.output)
		}
	}))
	fmt.Fprint(ts.Stdout(), b.output)
	delete(s.background, args[0])
	if (b.err != nil) != neg {
		ts.Fatalf("%s ended with %v", args[0], b.err)
	}
}

func interrupt(s *story, args []string) error {
	b, err := s.backgroundOf(args)
	if err != nil {
		return err
	}
	return machine.Interrupt(b.command)
}

func changeUnit(s *story, args []string) error {
	if len(args) != 3 {
		return errUsage
	}
	m, err := s.machine(args[1])
	if err != nil {
		return err
	}
	switch unit := args[2]; args[0] {
	case "kill":
		return m.KillUnit(s.ctx, unit)
	case "stop":
		return m.StopUnit(s.ctx, unit)
	case "start":
		_, err := m.Run(s.ctx, "systemctl", "start", unit)
		return err
	}
	return errUsage
}

func changeMachine(s *story, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	m, err := s.machine(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "kill":
		return m.Kill()
	case "boot":
		return m.PowerOn(s.ctx)
	case "shutdown":
		return m.Shutdown(s.ctx)
	case "partition":
		return m.Partition()
	case "heal":
		return m.Heal()
	}
	return errUsage
}

func connectBy(s *story, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	return s.lab.ConnectBy(machine.Way(args[0]))
}

func awaitClean(s *story, names []string) error {
	if len(names) == 0 {
		return errUsage
	}
	var machines []*machine.Machine
	for _, name := range names {
		m, err := s.machine(name)
		if err != nil {
			return err
		}
		machines = append(machines, m)
	}
	return s.awaitClean(machines, "output")
}

func changeRegistry(s *story, args []string) error {
	if len(args) != 3 || args[0] != "lock" {
		return errUsage
	}
	s.lab.LockRegistry(args[1], args[2])
	return nil
}
