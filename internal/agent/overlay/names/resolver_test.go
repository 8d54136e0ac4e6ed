package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain is also a node, when it is started as one.
func TestMain(m *testing.M) {
	if dir := os.Getenv("WARREN_TEST_NODE"); dir != "" {
		if err := beNode(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The claim of ContainerConf, for the resolvers that are at hand: the C library's and Go's.
func TestOneQueryDoesForEveryKindOfName(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("makes network and mount namespaces: needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), self)
	node.Env = append(os.Environ(), "WARREN_TEST_NODE="+t.TempDir())
	node.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if out, err := node.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// asked counts the queries of each name: the server looks each up once, whole.
type asked struct {
	mu    sync.Mutex
	names []string
}

func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	names := a.names
	a.names = nil
	slices.Sort(names)
	return names
}

// beNode serves names in a namespace of its own and looks some up as programs in containers do.
func beNode(dir string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	node := addr("10.208.1.1")
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: node.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	hostConf := filepath.Join(dir, "host")
	if err := os.WriteFile(hostConf, []byte("nameserver 127.0.1.1\nsearch corp.example\n"), 0o600); err != nil {
		return err
	}
	if err := mountConf(node, hostConf, dir); err != nil {
		return err
	}

	up, err := net.ListenPacket("udp", "127.0.1.1:53")
	if err != nil {
		return err
	}
	var seen asked
	d := cluster()
	d.asked = func(name string) (Service, bool) {
		seen.mu.Lock()
		seen.names = append(seen.names, name)
		seen.mu.Unlock()
		s, ok := d.services[name]
		return s, ok
	}
	s, err := Listen(context.Background(), Options{
		Addr: netip.AddrPortFrom(node, 53), Directory: d, Ranges: clusterRanges, ResolvConf: hostConf,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = run(ctx, &dns.Server{PacketConn: up, Handler: dns.HandlerFunc(hostResolver)}) })
	running.Go(func() { err = s.Serve(ctx) })
	wrong := lookUpAll(ctx, &seen)
	stop()
	running.Wait()
	return errors.Join(err, wrong)
}

// mountConf puts the container's file where programs look for it, in this mount namespace alone.
func mountConf(node netip.Addr, hostConf, dir string) error {
	conf, err := ContainerConf(node, hostConf)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for path, content := range map[string][]byte{"/etc/resolv.conf": conf, "/etc/nsswitch.conf": []byte("hosts: files dns\n")} {
		file := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
	}
	return nil
}

// hostResolver knows two names of elsewhere, one of them in the host's search domain.
func hostResolver(w dns.ResponseWriter, r *dns.Msg) {
	m := says("192.0.2.1", 0)(r, false)
	if name := r.Question[0].Name; name != "example.com." && name != "intranet.corp.example." {
		m = new(dns.Msg).SetRcode(r, dns.RcodeNameError)
	}
	_ = w.WriteMsg(m)
}

func lookUpAll(ctx context.Context, seen *asked) error {
	libraries := map[string]func(name string) (string, error){
		"C library": func(name string) (string, error) {
			out, err := exec.CommandContext(ctx, "getent", "ahosts", name).CombinedOutput()
			first, _, _ := strings.Cut(string(out), " ")
			return first, err
		},
		"Go": func(name string) (string, error) {
			found, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, name)
			return strings.Join(found, " "), err
		},
	}
	var wrong []error
	for library, lookUp := range libraries {
		for _, c := range []struct {
			name, want string
			asked      []string // as the directory hears of them
		}{
			{"web", "10.224.0.5", []string{"web"}},
			{"web.warren.internal", "10.224.0.5", []string{"web"}},
			{"api.example.com", "10.224.0.5", []string{"api.example.com"}},
			{"1.db", "10.208.1.3", []string{"1.db"}},
			{"example.com", "192.0.2.1", []string{"example.com"}},
			{"intranet", "192.0.2.1", []string{"intranet", "intranet.corp.example"}},
		} {
			got, err := lookUp(c.name)
			names := slices.DeleteFunc(seen.take(), func(n string) bool { return n == "db" || n == "1" }) // of 1.db, its parts
			once := len(names) <= 2*len(c.asked)                                                          // for A, and some for AAAA
			if names = slices.Compact(names); err != nil || got != c.want || !once || !slices.Equal(names, c.asked) {
				wrong = append(wrong, fmt.Errorf("%s: %s is %q (%w); asked once %v, for %q, want %q", library, c.name, got, err, once, names, c.asked))
			}
		}
	}
	return errors.Join(wrong...)
}
