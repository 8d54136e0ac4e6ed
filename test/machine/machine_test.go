//go:build linux

package machine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cuemby/warren/test/image"
	"github.com/cuemby/warren/test/machine"
)

// orphanVariable makes this test binary a process that makes a lab and is killed for it.
const orphanVariable = "WARREN_TEST_ORPHAN_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(orphanVariable) != "" {
		os.Exit(makeLabAndHang())
	}
	os.Exit(m.Run())
}

func newLab(t *testing.T) *machine.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("machines are made by root: \"make test\" runs this test as root")
	}
	lab, err := machine.NewLab(t.Context(), machine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func boot(t *testing.T, lab *machine.Lab, name string) *machine.Machine {
	t.Helper()
	m, err := lab.Boot(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func run(t *testing.T, m *machine.Machine, command string) string {
	t.Helper()
	output, err := m.Run(t.Context(), "sh", "-ec", command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(output)
}

// pushHello puts the test image into the lab's registry and returns its reference.
func pushHello(t *testing.T, lab *machine.Lab) string {
	t.Helper()
	images, err := image.Build(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	reference := lab.Registry() + "/hello:1"
	if err := image.Push(t.Context(), images["1"], reference, lab.RegistryTransport()); err != nil {
		t.Fatal(err)
	}
	return reference
}

func leftovers(t *testing.T, m *machine.Machine) []string {
	t.Helper()
	left, err := m.Leftovers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestAContainerServedFromTheLabsRegistryIsSeenUntilItIsGone(t *testing.T) {
	lab := newLab(t)
	reference := pushHello(t, lab)
	machines, err := lab.BootAll(t.Context(), "m1", "m2")
	if err != nil {
		t.Fatal(err)
	}
	m1, m2 := machines[0], machines[1]
	if m1.IP().Next() != m2.IP() {
		t.Errorf("m1 and m2 have the addresses %s and %s, want one after the other", m1.IP(), m2.IP())
	}
	run(t, m1, "ping -c 1 -W 5 m2")

	run(t, m1, "ctr -n warren images pull --plain-http "+reference)
	run(t, m1, "ctr -n warren run --detach --net-host --cgroup /warren/web.1 "+reference+" web.1")
	const ask = "curl --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 http://m1:8080/"
	if answer, want := run(t, m2, ask), "hello from m1, version 1, from="+m2.IP().String(); answer != want {
		t.Errorf("the container on m1 answered %q, want %q", answer, want)
	}

	left := strings.Join(leftovers(t, m1), "\n")
	for _, want := range []string{"container web.1", "task web.1", "snapshot web.1", "shim ", "mount ", "bundle web.1", "cgroup /sys/fs/cgroup"} {
		if !strings.Contains(left, want) {
			t.Errorf("with a container running, no leftover starts with %q:\n%s", want, left)
		}
	}
	if left := leftovers(t, m2); len(left) > 0 {
		t.Errorf("the other machine has leftovers: %q", left)
	}

	run(t, m1, "ctr -n warren tasks delete --force web.1; ctr -n warren containers delete web.1; rmdir /sys/fs/cgroup/warren /sys/fs/cgroup/*/warren 2>/dev/null || true")
	if left := leftovers(t, m1); len(left) > 0 {
		t.Errorf("with the container removed, there are leftovers: %q", left)
	}
}

func TestThePowerCutTakesTheMemoryAndLeavesTheDisk(t *testing.T) {
	lab := newLab(t)
	reference := pushHello(t, lab)
	m := boot(t, lab, "m1")
	run(t, m, "ctr images pull --plain-http "+reference+"; ctr run --detach "+reference+" gone")
	for _, file := range []string{"/etc/kept", "/var/lib/warren/kept", "/run/lost"} {
		run(t, m, "echo content >"+file)
	}
	run(t, m, "ip link add lost type bridge")
	addr := m.IP()

	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context(), "true"); !errors.Is(err, machine.ErrOff) {
		t.Errorf("a command on a machine without power ended with %v, want %v", err, machine.ErrOff)
	}
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}

	run(t, m, "test -e /etc/kept; test -e /var/lib/warren/kept; test ! -e /run/lost; ! ip link show lost")
	run(t, m, "ctr images ls -q | grep -x "+reference)
	if tasks := run(t, m, "ctr tasks ls -q"); tasks != "" {
		t.Errorf("a task outlived the power cut: %s", tasks)
	}
	if m.IP() != addr || !strings.Contains(run(t, m, "ip -o -4 address show eth0"), addr.String()) {
		t.Errorf("the machine did not come back with its address %s", addr)
	}
}

func TestAMachineShutsDownInGoodOrder(t *testing.T) {
	lab := newLab(t)
	m := boot(t, lab, "m1")
	unit := machine.Unit{Name: "farewell", Type: "exec", Command: []string{"sh", "-c", "trap 'echo bye >/var/lib/warren/bye; exit' TERM; while :; do sleep 1; done"}}
	if err := m.StartUnit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if err := m.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.HostPath("/var/lib/warren/bye")); err != nil {
		t.Errorf("the unit was not told to stop: %v", err)
	}
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAPulledCableCutsAMachineOffUntilItIsBack(t *testing.T) {
	lab := newLab(t)
	m1, m2 := boot(t, lab, "m1"), boot(t, lab, "m2")
	if err := m2.Partition(); err != nil {
		t.Fatal(err)
	}
	if _, err := m1.Run(t.Context(), "ping", "-c", "1", "-W", "1", "m2"); err == nil {
		t.Error("the machine answers without a cable")
	}
	run(t, m2, "true") // the cable is not the power
	if err := m2.Heal(); err != nil {
		t.Fatal(err)
	}
	run(t, m1, "ping -c 3 -i 0.2 -W 5 m2 >/dev/null || ping -c 1 -W 5 m2")
}

func TestAUnitIsKilledAndStartedAgain(t *testing.T) {
	lab := newLab(t)
	m := boot(t, lab, "m1")
	unit := machine.Unit{Name: "sleeper", Type: "exec", Command: []string{"sh", "-c", `echo "50% of $((40 + 2))"; exec sleep infinity`}}
	if err := m.StartUnit(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	// An exec unit counts as started before its program has printed anything.
	for begin := time.Now(); ; {
		journal, err := m.Journal(t.Context(), "sleeper", 10)
		if err == nil && strings.Contains(journal, "50% of 42") {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("the unit's output is %q (%v)", journal, err)
		}
	}
	first := run(t, m, "systemctl show --property MainPID --value sleeper")
	if err := m.KillUnit(t.Context(), "sleeper"); err != nil {
		t.Fatal(err)
	}
	if state, _ := m.Run(t.Context(), "systemctl", "is-active", "sleeper"); strings.TrimSpace(state) != "inactive" {
		t.Errorf("after the kill the unit is %s", state)
	}
	run(t, m, "systemctl start sleeper")
	if second := run(t, m, "systemctl show --property MainPID --value sleeper"); second == first || second == "0" {
		t.Errorf("the unit's process was %s and is %s after a kill and a start", first, second)
	}
	unit.Name, unit.Command = "broken", []string{"/no/such/program"}
	if err := m.StartUnit(t.Context(), unit); err == nil {
		t.Error("a unit without a program started")
	}
}

func TestACommandEndsWithItsContext(t *testing.T) {
	lab := newLab(t)
	m := boot(t, lab, "m1")
	ctx, cancel := context.WithCancel(t.Context())
	command := m.Command(ctx, "sh", "-c", "echo started; sleep 4242; echo over")
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("the command printed %q (%v)", line, err)
	}
	cancel()
	if err := command.Wait(); err == nil {
		t.Error("the command ended well")
	}
	if still := run(t, m, "pgrep --full 'sleep[ ]4242' || true"); still != "" {
		t.Errorf("a child of the command lives on: %s", still)
	}
}

func TestLabsDoNotMeet(t *testing.T) {
	first, second := newLab(t), newLab(t)
	m1, m2 := boot(t, first, "m1"), boot(t, second, "m1")
	if m1.IP() != m2.IP() {
		t.Errorf("machines of two labs have the addresses %s and %s, want the same", m1.IP(), m2.IP())
	}
	run(t, m1, "mkdir /sys/fs/cgroup/memory/mine 2>/dev/null || mkdir /sys/fs/cgroup/mine")
	if seen := run(t, m2, "find /sys/fs/cgroup -name mine"); seen != "" {
		t.Errorf("a cgroup of the other lab's machine is seen: %s", seen)
	}
}

func TestAClosedLabLeavesNothingOnTheHost(t *testing.T) {
	lab := newLab(t)
	id := labID(t, lab)
	m := boot(t, lab, "m1")
	boot(t, lab, "m2")
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if traces := tracesOnHost(t, id); len(traces) == 0 {
		t.Fatal("an open lab is not seen on the host: this test looks in the wrong places")
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if traces := tracesOnHost(t, id); len(traces) > 0 {
		t.Errorf("the closed lab left: %q", traces)
	}
}

func TestTheLabOfAKilledProcessIsRemovedByTheNextLab(t *testing.T) {
	kept := newLab(t) // a lab in use stays
	m := boot(t, kept, "m1")

	orphan := exec.CommandContext(t.Context(), os.Args[0])
	orphan.Env = append(os.Environ(), orphanVariable+"=1")
	orphan.Stderr = os.Stderr
	output, err := orphan.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	id = strings.TrimSpace(id)
	if err := orphan.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = orphan.Wait()
	if traces := tracesOnHost(t, id); len(traces) == 0 {
		t.Fatalf("the killed process left nothing of lab %q to remove", id)
	}

	newLab(t)
	if traces := tracesOnHost(t, id); len(traces) > 0 {
		t.Errorf("of the killed process's lab is left: %q", traces)
	}
	run(t, m, "true")
}

func makeLabAndHang() int {
	lab, err := machine.NewLab(context.Background(), machine.Options{})
	if err == nil {
		var m *machine.Machine
		if m, err = lab.Boot(context.Background(), "m1"); err == nil {
			fmt.Println(labDir(m))
			select {}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// labDir is the name of a machine's lab on the host: the first part of its disk's path under the
// directory of all labs.
func labDir(m *machine.Machine) string {
	relative, _ := filepath.Rel("/var/lib/warren-test", m.HostPath("/"))
	name, _, _ := strings.Cut(relative, string(filepath.Separator))
	return name
}

func labID(t *testing.T, lab *machine.Lab) string {
	t.Helper()
	return labDir(boot(t, lab, "probe"))
}

// tracesOnHost lists mounts, processes, directories, network namespaces and cgroups with the lab's
// name in theirs.
func tracesOnHost(t *testing.T, id string) []string {
	t.Helper()
	var traces []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, id) {
			traces = append(traces, "mount "+strings.TrimSpace(line))
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if command, err := os.ReadFile(file); err == nil && strings.Contains(string(command), id) {
			traces = append(traces, "process "+strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	for _, dir := range []string{"/var/lib/warren-test", "/run/netns", "/run/systemd/nspawn", "/sys/fs/cgroup"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && strings.Contains(entry.Name(), id) {
				traces = append(traces, "path "+path)
				if entry.IsDir() {
					return fs.SkipDir
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(traces)
	return traces
}
