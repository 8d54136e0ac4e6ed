package netfilter

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// Namespace is the network namespace that a node's rules are in. Whoever opened it has to close it.
type Namespace struct {
	handle netns.NsHandle
}

// Own is the calling thread's.
func Own() (Namespace, error) {
	handle, err := netns.Get()
	if err != nil {
		return Namespace{}, fmt.Errorf("open the network namespace: %w", err)
	}
	return Namespace{handle}, nil
}

// FD is the descriptor of the namespace, good until Close.
func (n Namespace) FD() int { return int(n.handle) }

// Run runs what starts programs: they are born into the namespace of the thread that starts them. It returns what's
// error, or why the namespace cannot be entered.
func (n Namespace) Run(what func() error) error {
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

// Bridged tells whether bridged packets pass the rules of routed ones too.
func (n Namespace) Bridged() bool {
	value := ""
	_ = n.Run(func() error { // a kernel without the setting does not have it so
		text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
		value = strings.TrimSpace(string(text))
		return err
	})
	return value == "1"
}

// Close lets go of the namespace, which lives on while anything else holds it.
func (n Namespace) Close() error { return n.handle.Close() }
