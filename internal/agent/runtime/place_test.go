package runtime

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// madeNamespace makes a network namespace with an eth0, as the overlay does, and returns its path.
func madeNamespace(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var problem error
	made := make(chan struct{})
	go func() {
		defer close(made)
		goruntime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if problem = unix.Unshare(unix.CLONE_NEWNET); problem != nil {
			return
		}
		problem = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}()
	<-made
	if problem != nil {
		t.Fatal("make a network namespace: ", problem)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error("remove the network namespace: ", err)
		}
	})
	for _, command := range []string{
		"ip link set lo up",
		"ip link add eth0 type veth peer name other",
		"ip addr add 10.208.3.7/32 dev eth0",
		"ip link set eth0 up",
		"ip link set other up",
	} {
		output, err := exec.CommandContext(t.Context(), "nsenter", append([]string{"--net=" + path}, strings.Fields(command)...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, output)
		}
	}
	return path
}

func TestATaskOnTheOverlaySeesItsPlaceAndFindsItAgainAfterARestart(t *testing.T) {
	b := newBench(t)
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs ip and nsenter: ", err)
		}
	}
	c := b.container("placed", "show")
	c.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_OVERLAY
	c.Spec.Container.Hostname = "db"
	c.Spec.Container.ReadOnly = true
	c.Spec.Container.Sysctls = map[string]string{"net.core.somaxconn": "77"}
	c.Place = Place{
		Namespace: madeNamespace(t), Address: netip.MustParseAddr("10.208.3.7"),
		ResolvConf: []byte("nameserver 10.208.3.1\nsearch warren.internal\n"),
	}
	s := b.show(c)
	if !slices.Contains(s.Interfaces, "lo up|loopback|running") || !slices.Contains(s.Interfaces, "eth0 up|broadcast|multicast|running") {
		t.Errorf("interfaces %q, want lo and the eth0 made before", s.Interfaces)
	}
	if want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.208.3.7\tdb\n"; s.Hosts != want {
		t.Errorf("hosts %q, want %q", s.Hosts, want)
	}
	if s.ResolvConf != string(c.Place.ResolvConf) {
		t.Errorf("resolv.conf %q", s.ResolvConf)
	}
	if s.Sysctl != "77" || s.Status["Seccomp"] != "2" {
		t.Errorf("somaxconn %s, seccomp %s", s.Sysctl, s.Status["Seccomp"])
	}

	// The namespace outlives its container: the next attempt's has the same.
	if err := b.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(own, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.ID, c.TaskID, c.Attempt = "placed-2", "placed-again", 2
	c.Spec.Container.Mounts = []*warrenv1.Mount{{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: own, Target: "/etc/resolv.conf"}}
	s = b.show(c)
	if !slices.Contains(s.Interfaces, "eth0 up|broadcast|multicast|running") {
		t.Errorf("interfaces %q after a restart", s.Interfaces)
	}
	if s.ResolvConf != "nameserver 192.0.2.1\n" {
		t.Errorf("resolv.conf %q, want the user's", s.ResolvConf)
	}
}

func TestATaskWithoutItsPlaceOnTheOverlayIsRefused(t *testing.T) {
	b := newBench(t)
	c := b.container("unplaced", "show")
	c.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED
	if _, err := b.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), "no place on the overlay") {
		t.Errorf("got %v", err)
	}
}
