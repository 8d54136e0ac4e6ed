//go:build linux

package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// labsDir is where the labs of this host keep their machines' disks, one directory each.
const labsDir = "/var/lib/warren-test"

// Options say what a lab's machines are made of.
type Options struct {
	// BinDir is a directory of the host that appears, read-only, as /usr/local/bin in every machine.
	BinDir string
	// Root is the root file system the machines boot from. Empty means the one that
	// rootimage.sh built.
	Root string
}

// Lab is a network of machines with an image registry. Labs do not see each other: every lab has
// the same addresses in a network namespace of its own.
type Lab struct {
	id     string
	dir    string
	binDir string
	root   string
	lock   *os.File

	network  string // path of the network namespace that holds the bridge
	registry *registryServer
	launcher *launcher

	mu       sync.Mutex
	way      Way // of the machines that are added next
	machines []*Machine
	closed   bool
}

// NewLab makes an empty lab. First it removes what labs of processes that died before they could
// close them have left on this host.
func NewLab(ctx context.Context, options Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("new lab: machines are made by root: run this with sudo, or use make")
	}
	root := options.Root
	if root == "" {
		root = RootImage()
	}
	if _, err := os.Stat(root); err != nil {
		return nil, fmt.Errorf("new lab: the machines' root file system is missing, run \"make setup\": %w", err)
	}
	lab := &Lab{root: root, launcher: newLauncher(), way: Straight}
	if options.BinDir != "" {
		dir, err := filepath.Abs(options.BinDir)
		if err != nil {
			return nil, fmt.Errorf("new lab: %w", err)
		}
		lab.binDir = dir
	}
	if err := lab.build(ctx); err != nil {
		return nil, fmt.Errorf("new lab: %w", errors.Join(err, lab.Close()))
	}
	return lab, nil
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.claimDir(); err != nil {
		return err
	}
	l.network = networkPath(l.id, "")
	if err := createNetwork(l.network); err != nil {
		return err
	}
	if err := createBridge(l.network, gateway, gatewayIPv6); err != nil {
		return err
	}
	registry, err := startRegistry(ctx, l.network)
	if err != nil {
		return err
	}
	l.registry = registry
	return nil
}

// claimDir makes the lab's directory and holds a lock in it for as long as this process lives: a
// directory whose lock is free belongs to a lab nobody will close any more.
func (l *Lab) claimDir() error {
	if err := os.MkdirAll(labsDir, 0o755); err != nil {
		return err
	}
	door, err := lockFile(filepath.Join(labsDir, ".lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer door.Close()
	if err := sweep(); err != nil {
		return fmt.Errorf("remove what an interrupted lab left: %w", err)
	}

	var random [3]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	l.id = idPrefix + hex.EncodeToString(random[:])
	l.dir = filepath.Join(labsDir, l.id)
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	if l.lock, err = lockFile(filepath.Join(l.dir, lockName), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	return makeDiskSpace(filepath.Join(l.dir, disksName))
}

// makeDiskSpace makes the directory for the machines' disks. Overlay file systems, which the
// machines and their containers are made of, cannot be stacked on an overlay: there the disks live
// in memory.
func makeDiskSpace(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if stat.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return nil
	}
	return mount("tmpfs", dir, "tmpfs", 0, "mode=0755")
}

// Registry is the address, as machines see it, of the lab's image registry. It speaks plain HTTP.
func (l *Lab) Registry() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.way == IPv6 {
		return registryName + ":" + registryPort // image names have no place for IPv6 addresses
	}
	return registryAddress
}

// ConnectBy says how the machines that are added from now on are connected to the lab's network.
func (l *Lab) ConnectBy(way Way) error {
	if way != Straight && way != IPv6 && way != Translated {
		return fmt.Errorf("machines are connected %s, %s or %s, not %q", Straight, IPv6, Translated, way)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.way = way
	return nil
}

// RegistryTransport reaches the lab's registry (and anything else on the lab's network) from this
// process, for pushing images.
func (l *Lab) RegistryTransport() http.RoundTripper { return l.registry.transport }

// LockRegistry has the lab's registry ask everyone for a name and a password from now on.
func (l *Lab) LockRegistry(user, password string) {
	l.registry.lock.Store(url.UserPassword(user, password))
}

// Machines lists the machines in the order in which they were booted, also those switched off.
func (l *Lab) Machines() []*Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.machines)
}

// Machine returns the machine of that name, or nil.
func (l *Lab) Machine(name string) *Machine {
	for _, m := range l.Machines() {
		if m.name == name {
			return m
		}
	}
	return nil
}

// Boot adds a machine to the lab and switches it on. It returns when the machine's systemd has
// started everything, containerd included.
func (l *Lab) Boot(ctx context.Context, name string) (*Machine, error) {
	machines, err := l.BootAll(ctx, name)
	if err != nil {
		return nil, err
	}
	return machines[0], nil
}

// BootAll adds machines to the lab and switches them on, all at once. Their addresses are in the
// order of the names.
func (l *Lab) BootAll(ctx context.Context, names ...string) ([]*Machine, error) {
	var machines []*Machine
	for _, name := range names {
		m, err := l.add(name)
		if err != nil {
			return nil, fmt.Errorf("boot %s: %w", name, err)
		}
		machines = append(machines, m)
	}
	if err := l.nameMachines(); err != nil {
		return nil, fmt.Errorf("boot: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		group.Go(func() error { return m.PowerOn(ctx) })
	}
	return machines, group.Wait()
}

func (l *Lab) add(name string) (*Machine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, errors.New("the lab is closed")
	case name == "" || len(name) > 12 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
		// The name is also that of a network interface.
		return nil, errors.New("a machine's name is 1 to 12 lower-case letters and digits")
	case slices.ContainsFunc(l.machines, func(m *Machine) bool { return m.name == name }):
		return nil, errors.New("the lab has a machine of that name")
	case len(l.machines) == maxMachines:
		return nil, fmt.Errorf("the lab's network holds %d machines", maxMachines)
	}
	m := &Machine{
		lab:  l,
		name: name,
		way:  l.way,
		addr: machineAddr(len(l.machines), l.way),
		dir:  filepath.Join(l.dir, disksName, name),
	}
	if err := m.makeDisk(); err != nil {
		return nil, err
	}
	l.machines = append(l.machines, m)
	return m, nil
}

// nameMachines tells all machines all names.
func (l *Lab) nameMachines() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	via := gateway
	if l.way == IPv6 {
		via = gatewayIPv6
	}
	fmt.Fprintf(&hosts, "%s %s\n", via.Addr(), registryName)
	for _, m := range l.machines {
		fmt.Fprintf(&hosts, "%s %s\n", m.IP(), m.name)
	}
	for _, m := range l.machines {
		if err := os.WriteFile(m.HostPath("/etc/hosts"), []byte(hosts.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the lab with everything in it from the host. It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	machines := l.machines
	l.mu.Unlock()

	var failed []error
	for _, m := range machines {
		failed = append(failed, m.Kill())
	}
	l.launcher.stop()
	if l.registry != nil {
		failed = append(failed, l.registry.stop())
	}
	if l.id != "" {
		failed = append(failed, remove(l.id))
	}
	if l.lock != nil {
		failed = append(failed, l.lock.Close())
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("close lab %s: %w", l.id, err)
	}
	return nil
}

func lockFile(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: path, Err: err}, file.Close())
	}
	return file, nil
}
