//go:build linux

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A lab's network is one bridge in a network namespace of its own: in the host's own namespace the
// host's firewall (Docker's, say) would drop the machines' traffic. For the same reason every lab
// can have the same addresses.
var (
	gateway     = netip.MustParsePrefix("10.77.0.1/24")
	gatewayIPv6 = netip.MustParsePrefix("fd77::1/64")
	// insideRouter is a router's address on the side of its machine.
	insideRouter = netip.MustParsePrefix("192.168.77.1/24")
)

// Way is how a machine is connected to its lab's network.
type Way string

// The ways.
const (
	// Straight is by a cable to the lab's bridge, and with IPv4.
	Straight Way = "straight"
	// IPv6 is the same with an IPv6 address and no other.
	IPv6 Way = "ipv6"
	// Translated is from behind a router of the machine's own that has the address on the lab's network: it sends what comes
	// from inside as its own, from other ports, and lets in the answers to that and nothing else.
	Translated Way = "translated"
)

const (
	namespacesDir = "/run/netns"
	bridgeName    = "lab"
	registryPort  = "5000"
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

// machineAddr is the address on the lab's network of a machine, or of its router.
func machineAddr(index int, way Way) netip.Prefix {
	if way == IPv6 {
		octets := gatewayIPv6.Addr().As16()
		octets[15] = byte(firstMachine + index)
		return netip.PrefixFrom(netip.AddrFrom16(octets), gatewayIPv6.Bits())
	}
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

func createBridge(network string, addresses ...netip.Prefix) error {
	err := inNetwork(network, func() error {
		if err := linkUp("lo"); err != nil {
			return err
		}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		for _, address := range addresses {
			if err := addAddress(bridge, address); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(bridge)
	})
	if err != nil {
		return fmt.Errorf("create the lab's bridge: %w", err)
	}
	return nil
}

// connect lays a cable between eth0 of a machine, or of its router, and a port, named after the machine, of the lab's
// bridge.
func connect(network, machineNetwork, port string, address netip.Prefix) error {
	err := inNetwork(network, func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		return cable(netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index}, machineNetwork, address.Addr())
	})
	if err != nil {
		return fmt.Errorf("connect to the lab's bridge: %w", err)
	}
	via := gateway
	if address.Addr().Is6() {
		via = gatewayIPv6
	}
	return settleIn(machineNetwork, address, via.Addr())
}

// cable lays one from a port of the network namespace that the thread is in to eth0 of another, which will have that
// address. Its hardware address is the same after every power cut, so that neighbours need not learn it anew.
func cable(port netlink.LinkAttrs, network string, address netip.Addr) error {
	ns, err := netns.GetFromPath(network)
	if err != nil {
		return err
	}
	defer ns.Close()
	veth := &netlink.Veth{
		LinkAttrs: port, PeerName: "eth0", PeerHardwareAddr: hardwareAddr(address), PeerNamespace: netlink.NsFd(ns),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

// settleIn gives the machine that has the network namespace its address, and its way out.
func settleIn(network string, address netip.Prefix, gateway netip.Addr) error {
	err := inNetwork(network, func() error {
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
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice()})
	})
	if err != nil {
		return fmt.Errorf("give the machine its address: %w", err)
	}
	return nil
}

// insideRouterPort is a router's link to its machine.
const insideRouterPort = "inside"

// translate makes a router of the network namespace, and connects the machine to it.
func translate(ctx context.Context, router, machineNetwork string, address netip.Prefix) error {
	const rules = `
		table ip router {
			chain forward {
				type filter hook forward priority 0; policy drop;
				iifname "inside" accept
				ct state established accept
			}
			chain postrouting {
				type nat hook postrouting priority 100;
				oifname "eth0" meta l4proto udp masquerade to :20000-29999
				oifname "eth0" masquerade
			}
		}`
	err := inNetwork(router, func() error {
		if err := cable(netlink.LinkAttrs{Name: insideRouterPort}, machineNetwork, address.Addr()); err != nil {
			return err
		}
		inside, err := netlink.LinkByName(insideRouterPort)
		if err != nil {
			return err
		}
		if err := addAddress(inside, insideRouter); err != nil {
			return err
		}
		for setting, value := range map[string]string{
			"ipv4/ip_forward": "1",
			// It forgets as soon as routers do that are out for it.
			"netfilter/nf_conntrack_udp_timeout": "30", "netfilter/nf_conntrack_udp_timeout_stream": "30",
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", setting), []byte(value), 0); err != nil {
				return err
			}
		}
		nft := exec.CommandContext(ctx, "nft", "-f", "-")
		nft.Stdin = strings.NewReader(rules)
		if output, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(output))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put a router before the machine: %w", err)
	}
	return settleIn(machineNetwork, address, insideRouter.Addr())
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
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   address.Addr().AsSlice(),
		Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen()),
	}}
	if address.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // it is of use at once
	}
	return netlink.AddrAdd(link, addr)
}

// hardwareAddr is a locally administered address made of the end of the machine's address.
func hardwareAddr(address netip.Addr) net.HardwareAddr {
	ip := address.As16()
	return net.HardwareAddr{0x02, 0x77, ip[12], ip[13], ip[14], ip[15]}
}
