//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/machine"
)

// commands are what scripts can say beside testscript's own commands. $HELLO is the test image.
//
//	until RE COMMAND...    run a command until its output matches the regular expression; it is then
//	                       stdout
//	cgroup SERVICE [FILE]  print a file of the cgroup of the service's only container that is wanted;
//	                       without FILE, the cgroup's path below /sys/fs/cgroup
//	within SERVICE COMMAND...
//	                       run a command of this machine in the network of the service's only container,
//	                       and with its resolver
//	leftovers              list what there is of containers on this machine, of any service, by kind
//	clean                  wait until that is nothing but kept output
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"until":     until,
	"cgroup":    printCgroup,
	"within":    runWithin,
	"leftovers": printLeftovers,
	"clean":     awaitClean,
}

const (
	cgroupRoot = "/sys/fs/cgroup"
	// leftoversScript is package machine's. Scripts run elsewhere than this test, so it is named in full.
	leftoversScript = "/var/lib/second-drive/leftovers.sh"
)

var (
	errUsage = errors.New("wrong arguments: see the list of commands in test/kernel/guest")
	quiet    = log.New(io.Discard, "", 0)
)

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("%v", errUsage)
	}
	wanted, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var seen []byte
	ts.Check(await(args[0], func(ctx context.Context) error {
		seen, _ = exec.CommandContext(ctx, args[1], args[2:]...).CombinedOutput()
		if !wanted.Match(seen) {
			return fmt.Errorf("the last output was:\n%s", seen)
		}
		return nil
	}))
	fmt.Fprintf(ts.Stdout(), "%s", seen)
}

func await(what string, ask func(context.Context) error) error {
	return cluster.AwaitWithin(context.Background(), awaitAtMost, what, ask)
}

func printCgroup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("%v", errUsage)
	}
	path, err := cgroupOf(args[0])
	ts.Check(err)
	if len(args) == 1 {
		fmt.Fprintln(ts.Stdout(), strings.TrimPrefix(path, cgroupRoot))
		return
	}
	fmt.Fprint(ts.Stdout(), ts.ReadFile(filepath.Join(path, args[1])))
}

// cgroupOf finds the cgroup of the only container of a service's only task.
func cgroupOf(service string) (string, error) {
	task, err := run(context.Background(), "warrenctl", "service", "ps", "--quiet", "--no-trunc", "--filter", "desired-state=running", service)
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(cgroupRoot, machine.CgroupParent, strings.TrimSpace(task)+"-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the task %q of %s has not one cgroup but %q", strings.TrimSpace(task), service, found)
	}
	return found[0], nil
}

func runWithin(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("%v", errUsage)
	}
	path, err := cgroupOf(args[0])
	ts.Check(err)
	pids := strings.Fields(ts.ReadFile(filepath.Join(path, "cgroup.procs")))
	if len(pids) == 0 {
		ts.Fatalf("nothing runs in the container of %s", args[0])
	}
	const script = `cat "/proc/$1/root/etc/resolv.conf" >/run/resolver
		mount --bind /run/resolver /etc/resolv.conf
		shift
		exec "$@"`
	enter := []string{"--net=/proc/" + pids[0] + "/ns/net", "unshare", "--mount", "sh", "-ec", script, "sh", pids[0]}
	if err := ts.Exec("nsenter", append(enter, args[1:]...)...); (err != nil) != neg {
		ts.Fatalf("%s ended otherwise than expected: %v", args[1], err)
	}
}

func printLeftovers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("%v", errUsage)
	}
	found, err := leftovers(context.Background())
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), found)
}

func awaitClean(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("%v", errUsage)
	}
	ts.Check(await("the machine to be clean", func(ctx context.Context) error {
		found, err := leftovers(ctx)
		for line := range strings.Lines(found) {
			if !strings.HasPrefix(line, "output ") { // of tasks that are remembered
				err = errors.Join(err, errors.New("left: "+strings.TrimSpace(line)))
			}
		}
		return err
	}))
}

// leftovers is what machine.Leftovers would say of this machine.
func leftovers(ctx context.Context) (string, error) {
	var stderr bytes.Buffer
	list := exec.CommandContext(ctx, "sh", "-e", leftoversScript, machine.Namespace, machine.CgroupParent)
	list.Stderr = &stderr
	found, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("list leftovers: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(found), nil
}
