package manager

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// checkAddr tells what is wrong with an address to listen on.
func checkAddr(flag, addr string) error {
	if addr == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%s %s: it must be HOST:PORT, such as 0.0.0.0:7420", flag, addr)
	}
	return nil
}

// checkReach tells what is wrong with an address under which others are to reach a manager.
func checkReach(flag, addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" || port == "0" {
		return fmt.Errorf("%s %s: it must be HOST:PORT, such as 10.0.0.5:7420", flag, addr)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return fmt.Errorf("%s %s: nobody can reach a manager there, as %s stands for every address of whoever uses it: give one of this machine's own", flag, addr, host)
	}
	return nil
}

// advertised returns under which host:port agents reach a listener; empty where there is none. An address
// that stands for all of the machine's own is replaced by the first that others may reach.
func advertised(configured string, addr net.Addr) string {
	if configured != "" || addr == nil {
		return configured
	}
	listening, err := netip.ParseAddrPort(addr.String())
	if err != nil || !listening.Addr().IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort(cmp.Or(reachable(), "127.0.0.1"), strconv.Itoa(int(listening.Port())))
}

// overlayLinks is what the names of the overlay's links begin with. Their addresses lead to managers only once there is an
// overlay, for which there must be managers.
const overlayLinks = "warren"

// reachable returns this machine's first address that is not of loopback, of one link alone or of the overlay, IPv4
// before IPv6.
func reachable() string {
	links, err := net.Interfaces()
	if err != nil {
		return ""
	}
	var six string
	for _, l := range links {
		if strings.HasPrefix(l.Name, overlayLinks) {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue // it went away between the two calls
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || !prefix.Addr().IsGlobalUnicast() {
				continue
			}
			if prefix.Addr().Is4() {
				return prefix.Addr().String()
			}
			six = cmp.Or(six, prefix.Addr().String())
		}
	}
	return six
}
