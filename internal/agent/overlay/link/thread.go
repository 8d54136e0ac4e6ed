package link

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// within runs f on a thread that is in the given network namespace. Netlink sockets stay in the namespace
// in which they were opened, but /proc/sys/net is that of whoever looks.
func (w *Wires) within(ns netns.NsHandle, f func() error) error {
	return borrowThread(func() error {
		if err := unix.Setns(int(ns), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// borrowThread runs f, which may change the network namespace of its thread. A thread that does not find
// back to where it was ends with its goroutine instead of serving others.
func borrowThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		before, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open the network namespace: %w", err)
			return
		}
		defer before.Close()
		err = f()
		if unix.Setns(int(before), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// setting is one value under /proc/sys/net, of the thread's network namespace.
type setting struct{ path, value string }

// apply writes what differs. What the kernel does not have, such as IPv6 where that is switched off, needs
// no setting.
func apply(settings ...setting) error {
	for _, s := range settings {
		now, err := readSetting(s.path)
		if os.IsNotExist(err) || err == nil && now == s.value {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys/net", s.path), []byte(s.value), 0); err != nil {
			return fmt.Errorf("set net/%s to %s: %w", s.path, s.value, err)
		}
	}
	return nil
}

func readSetting(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", path))
	return strings.TrimSpace(string(text)), err
}

func v4(link, name, value string) setting { return setting{"ipv4/conf/" + link + "/" + name, value} }

func withoutIPv6(link string) setting { return setting{"ipv6/conf/" + link + "/disable_ipv6", "1"} }
