//go:build linux

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrOff is what a command is told that is run on a machine without power.
var ErrOff = errors.New("the machine is off")

// Machine is one machine of a lab. Its disk, name and addresses last as long as the lab; its
// processes and its memory, network namespace included, as long as its power is on.
type Machine struct {
	lab  *Lab
	name string
	way  Way
	addr netip.Prefix // on the lab's network: its own, or its router's
	dir  string

	mu     sync.Mutex
	power  *exec.Cmd     // the running systemd-nspawn, nil when off
	leader int           // the machine's process 1, as the host sees it
	off    chan struct{} // closed when the power has gone
}

// Name is the machine's name in the lab and its host name.
func (m *Machine) Name() string { return m.name }

// IP is the machine's own address, on the lab's network unless the machine is behind a router.
func (m *Machine) IP() netip.Addr {
	if m.way == Translated {
		return insideRouter.Addr().Next()
	}
	return m.addr.Addr()
}

// Leader is the machine's process 1 as the host sees it, for entering the machine by hand; 0 when off.
func (m *Machine) Leader() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader
}

// HostPath is where the host finds a file of the machine's disk. What the machine itself mounts
// (/run, /proc, …) is not there.
func (m *Machine) HostPath(path string) string { return filepath.Join(m.dir, "root", path) }

// ownDirs are on the machine's disk proper, where everything else is an overlay over the common root:
// containerd keeps overlays of its own in one, and the other is a database's.
var ownDirs = []string{"/var/lib/containerd", "/var/lib/warren"}

func (m *Machine) makeDisk() error {
	upper, work, root := filepath.Join(m.dir, "upper"), filepath.Join(m.dir, "work"), filepath.Join(m.dir, "root")
	for _, dir := range []string{upper, work, root} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	err := mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", m.lab.root, upper, work))
	if err != nil {
		return err
	}
	for _, own := range ownDirs {
		dir := filepath.Join(m.dir, "own", filepath.Base(own))
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
		if err := os.MkdirAll(m.HostPath(own), 0o711); err != nil {
			return err
		}
		if err := mount(dir, m.HostPath(own), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// PowerOn switches the machine on, with the disk as it was. It returns when systemd has started
// everything, containerd included.
func (m *Machine) PowerOn(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.power != nil {
		return fmt.Errorf("power on %s: it is on", m.name)
	}
	if err := m.powerOn(ctx); err != nil {
		return fmt.Errorf("power on %s: %w", m.name, errors.Join(err, m.cutPower()))
	}
	return nil
}

func (m *Machine) powerOn(ctx context.Context) error {
	network := networkPath(m.lab.id, m.name)
	if err := createNetwork(network); err != nil {
		return err
	}
	if err := m.connect(ctx, network); err != nil {
		return err
	}
	cgroups, err := createCgroups(m.lab.id, m.name)
	if err != nil {
		return err
	}
	boot, err := listenForBoot(filepath.Join(m.dir, "notify"))
	if err != nil {
		return err
	}
	defer boot.close()

	var output bytes.Buffer
	script := append([]string{"-c", enterCgroups(cgroups) + `exec "$@"`, "sh"}, m.nspawn(network)...)
	power := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", script...) // it outlives its boot
	power.Env = append(os.Environ(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1", "NOTIFY_SOCKET="+boot.path)
	power.Stdout, power.Stderr = &output, &output
	power.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.lab.launcher.run(power.Start); err != nil {
		return err
	}
	off := make(chan struct{})
	go func() {
		_ = power.Wait() // how it ended is of no interest: it was killed, or its machine switched itself off
		close(off)
	}()
	m.power, m.off = power, off

	leader, err := boot.wait(ctx, off)
	if err != nil {
		m.endBoot()
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(output.String()))
	}
	m.leader = leader
	return m.checkBoot(ctx)
}

func (m *Machine) connect(ctx context.Context, network string) error {
	if m.way != Translated {
		return connect(m.lab.network, network, m.name, m.addr)
	}
	if err := createNetwork(m.routerPath()); err != nil {
		return err
	}
	if err := connect(m.lab.network, m.routerPath(), m.name, m.addr); err != nil {
		return err
	}
	return translate(ctx, m.routerPath(), network, netip.PrefixFrom(m.IP(), insideRouter.Bits()))
}

func (m *Machine) routerPath() string { return networkPath(m.lab.id, m.name+"-router") }

// enterCgroups is shell that moves the shell into the cgroups.
func enterCgroups(dirs []string) string {
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, dir := range dirs {
		fmt.Fprintf(&script, "echo $$ >%s/cgroup.procs\n", dir)
	}
	return script.String()
}

func (m *Machine) nspawn(network string) []string {
	args := []string{
		"systemd-nspawn", "--quiet", "--settings=no", "--boot", "--console=pipe",
		"--directory=" + filepath.Join(m.dir, "root"),
		"--machine=" + m.lab.id + "-" + m.name, "--hostname=" + m.name,
		"--register=no", "--keep-unit", // no machined and no host systemd is needed
		"--notify-ready=yes",
		"--network-namespace-path=" + network,
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--capability=all", "--system-call-filter=add_key keyctl bpf", // as root on a real machine
	}
	if _, err := os.Stat("/dev/net/tun"); err == nil {
		args = append(args, "--bind=/dev/net/tun")
	}
	if m.lab.binDir != "" {
		args = append(args, "--bind-ro="+m.lab.binDir+":/usr/local/bin")
	}
	return args
}

// checkBoot says which units did not start, if any.
func (m *Machine) checkBoot(ctx context.Context) error {
	state, err := m.command(ctx, m.leader, "systemctl", "is-system-running").CombinedOutput()
	if err == nil {
		return nil
	}
	units, _ := m.command(ctx, m.leader, "systemctl", "--failed", "--plain", "--no-legend").CombinedOutput()
	return fmt.Errorf("it booted, but is %s: %s", bytes.TrimSpace(state), bytes.TrimSpace(units))
}

// Kill takes the machine's power away, like a pulled plug: no process of it learns of it. A machine
// that is off is left as it is.
func (m *Machine) Kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.cutPower(); err != nil {
		return fmt.Errorf("kill %s: %w", m.name, err)
	}
	return nil
}

// Shutdown powers the machine off in good order, as the poweroff command does.
func (m *Machine) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.power == nil {
		return fmt.Errorf("shut down %s: %w", m.name, ErrOff)
	}
	if err := m.power.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("shut down %s: %w", m.name, err)
	}
	select {
	case <-m.off:
	case <-ctx.Done():
		return fmt.Errorf("shut down %s: %w", m.name, context.Cause(ctx))
	}
	if err := m.cutPower(); err != nil {
		return fmt.Errorf("shut down %s: %w", m.name, err)
	}
	return nil
}

// cutPower ends whatever runs of the machine, at whatever point of a boot it is, and takes away what
// is not of its disk.
func (m *Machine) cutPower() error {
	m.endBoot()
	name := filepath.Join(m.lab.id, m.name)
	return errors.Join(
		killCgroups(name),
		removeCgroups(name),
		// The kernel is slow to take a network namespace down; its cable must be free for the next power-on.
		disconnect(m.lab.network, m.name),
		removeNetwork(networkPath(m.lab.id, m.name)),
		removeNetwork(m.routerPath()),
		removeNspawnTraces(m.lab.id+"-"+m.name),
	)
}

// endBoot ends systemd-nspawn, and with it the machine's processes.
func (m *Machine) endBoot() {
	if m.power == nil {
		return
	}
	_ = m.power.Process.Kill() // it may have ended by itself
	<-m.off
	m.power, m.leader = nil, 0
}

// Partition pulls the machine's network cable.
func (m *Machine) Partition() error { return m.setCable(false) }

// Heal plugs the machine's network cable in again.
func (m *Machine) Heal() error { return m.setCable(true) }

func (m *Machine) setCable(plugged bool) error {
	if err := setPort(m.lab.network, m.name, plugged); err != nil {
		return fmt.Errorf("set the cable of %s: %w", m.name, err)
	}
	return nil
}

// Command is a command that will run on the machine, as root, with the machine's own PATH. It ends
// with ctx, children included.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	leader := m.Leader()
	cmd := m.command(ctx, leader, args...)
	if leader == 0 {
		cmd.Err = fmt.Errorf("%s: %w", m.name, ErrOff)
	}
	return cmd
}

func (m *Machine) command(ctx context.Context, leader int, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(leader), "--all", "--root", "--wdns=/root", "--", "setsid"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is not for nsenter
	cmd.Cancel = func() error { return endEntered(cmd.Process) }
	return cmd
}

// Interrupt sends a running command of a machine what Ctrl-C at its terminal would.
func Interrupt(cmd *exec.Cmd) error { return signalEntered(cmd.Process, syscall.SIGINT) }

// endEntered ends what nsenter runs. nsenter itself is left to wait for its child, as nobody else
// would: a process that entered a machine is no concern of the machine's own process 1, yet keeps the
// machine from going.
func endEntered(nsenter *os.Process) error {
	err := signalEntered(nsenter, syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		return nsenter.Kill()
	}
	return err
}

// signalEntered signals nsenter's child, which leads a session of its own, and the child's children.
func signalEntered(nsenter *os.Process, signal syscall.Signal) error {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nsenter.Pid, nsenter.Pid))
	fields := strings.Fields(string(children))
	if err != nil || len(fields) != 1 {
		return os.ErrProcessDone
	}
	child, err := strconv.Atoi(fields[0])
	if err != nil {
		return err
	}
	if err := syscall.Kill(-child, signal); errors.Is(err, syscall.ESRCH) { // no session yet
		return syscall.Kill(child, signal)
	}
	return nil
}

// Run runs a command on the machine and returns what it printed. An error holds what it printed too.
func (m *Machine) Run(ctx context.Context, args ...string) (string, error) {
	output, err := m.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("%s: %s: %w: %s", m.name, strings.Join(args, " "), err, bytes.TrimSpace(output))
	}
	return string(output), nil
}

// Dial connects from the machine to a numeric address and port, as seen from the machine.
func (m *Machine) Dial(ctx context.Context, protocol, address string) (net.Conn, error) {
	return dialIn(ctx, networkPath(m.lab.id, m.name), protocol, address)
}
