package rules

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// namespace is the network namespace that a node's rules are in.
type namespace struct {
	handle netns.NsHandle
}

// ownNamespace is the calling thread's.
func ownNamespace() (namespace, error) {
	handle, err := netns.Get()
	if err != nil {
		return namespace{}, fmt.Errorf("open the network namespace: %w", err)
	}
	return namespace{handle}, nil
}

func (n namespace) fd() int { return int(n.handle) }

// run runs what starts programs: they are born into the namespace of the thread that starts them.
func (n namespace) run(what func() error) error {
	runtime.LockOSThread()
	current, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer current.Close()
	if current.Equal(n.handle) {
		defer runtime.UnlockOSThread()
		return what()
	}
	if err := netns.Set(n.handle); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	err = what()
	if netns.Set(current) == nil {
		runtime.UnlockOSThread() // a thread that cannot go back stays locked and ends with its goroutine
	}
	return err
}

// bridged tells whether bridged packets pass the rules of routed ones too.
func (n namespace) bridged() bool {
	value := ""
	_ = n.run(func() error { // a kernel without the setting does not have it so
		text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
		value = strings.TrimSpace(string(text))
		return err
	})
	return value == "1"
}

func (n namespace) close() error { return n.handle.Close() }
