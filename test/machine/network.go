//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A lab's network is one bridge in a network namespace of its own: in the host's own namespace the
// host's firewall (Docker's, say) would drop the machines' traffic. For the same reason every lab
// can have the same addresses.
var gateway = netip.MustParsePrefix("10.77.0.1/24")

const (
	namespacesDir = "/run/netns"
	bridgeName    = "lab"
	registryPort  = 5000
	firstMachine  = 11
	maxMachines   = 240
)

func networkPath(lab, machine string) string {
	name := lab
	if machine != "" {
		name += "-" + machine
	}
	return filepath.Join(namespacesDir, name)
}

func machineAddr(index int) netip.Prefix {
	octets := gateway.Addr().As4()
	octets[3] = byte(firstMachine + index)
	return netip.PrefixFrom(netip.AddrFrom4(octets), gateway.Bits())
}

// createNetwork makes a network namespace and pins it at path, where "ip netns" finds it too.
func createNetwork(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nothing else runs in the new namespace.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			return mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("create network namespace: %w", err), os.Remove(path))
	}
	return nil
}

// removeNetwork unpins a network namespace; its links go with its last process.
func removeNetwork(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unmount", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// inNetwork runs f on a thread that is in the network namespace at path. Sockets that f opens stay
// in it.
func inNetwork(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		done <- func() error {
			ns, err := netns.GetFromPath(path)
			if err != nil {
				return &fs.PathError{Op: "open network namespace", Path: path, Err: err}
			}
			defer ns.Close()
			if err := netns.Set(ns); err != nil {
				return &fs.PathError{Op: "enter network namespace", Path: path, Err: err}
			}
			return f()
		}()
	}()
	return <-done
}

func createBridge(network string, address netip.Prefix) error {
	err := inNetwork(network, func() error {
		if err := linkUp("lo"); err != nil {
			return err
		}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if err := addAddress(bridge, address); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	})
	if err != nil {
		return fmt.Errorf("create the lab's bridge: %w", err)
	}
	return nil
}

// connect lays a cable between a machine's eth0 and a port, named after the machine, of the lab's
// bridge.
func connect(network, machineNetwork, port string, address netip.Prefix) error {
	err := inNetwork(network, func() error {
		ns, err := netns.GetFromPath(machineNetwork)
		if err != nil {
			return err
		}
		defer ns.Close()
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
			PeerName:  "eth0",
			// The same after every power cut, so that neighbours need not learn it anew.
			PeerHardwareAddr: hardwareAddr(address.Addr()),
			PeerNamespace:    netlink.NsFd(ns),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	if err != nil {
		return fmt.Errorf("connect to the lab's bridge: %w", err)
	}
	err = inNetwork(machineNetwork, func() error {
		if err := linkUp("lo"); err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := addAddress(eth0, address); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth0); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.Addr().AsSlice()})
	})
	if err != nil {
		return fmt.Errorf("give the machine its address: %w", err)
	}
	return nil
}

// disconnect takes the cable away, with what it is plugged into in the machine.
func disconnect(network, port string) error {
	err := inNetwork(network, func() error {
		link, err := netlink.LinkByName(port)
		if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if err != nil {
		return fmt.Errorf("disconnect from the lab's bridge: %w", err)
	}
	return nil
}

// setPort raises or drops one port of the lab's bridge: the machine behind it sees its cable pulled.
func setPort(network, port string, up bool) error {
	return inNetwork(network, func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func addAddress(link netlink.Link, address netip.Prefix) error {
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{
		IP:   address.Addr().AsSlice(),
		Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen()),
	}})
}

// hardwareAddr is a locally administered address made of the machine's IPv4 address.
func hardwareAddr(address netip.Addr) net.HardwareAddr {
	ip := address.As4()
	return net.HardwareAddr{0x02, 0x77, ip[0], ip[1], ip[2], ip[3]}
}
