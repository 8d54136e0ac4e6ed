package port

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// reserve binds what is not bound yet.
func (r *reservation) reserve(p Port) error {
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if r.sockets[i] >= 0 {
			continue
		}
		socket, err := bind(family, p)
		if family == unix.AF_INET6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue // a host without IPv6
		}
		if err != nil {
			return err
		}
		r.sockets[i] = socket
	}
	return nil
}

func (r *reservation) release() {
	for i, socket := range r.sockets {
		if socket >= 0 {
			unix.Close(socket)
			r.sockets[i] = -1
		}
	}
}

// bind makes a socket that has the port at all addresses of the family. It has neither SO_REUSEADDR nor, unless the agent
// has the port too, SO_REUSEPORT, without which on both sides no other may bind the same; and a TCP socket that is bound
// and does not listen refuses connections as if nobody were there.
func bind(family int, p Port) (int, error) {
	kind := unix.SOCK_STREAM
	if p.Protocol == UDP {
		kind = unix.SOCK_DGRAM
	}
	socket, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.Number)}
	if family == unix.AF_INET6 {
		address = &unix.SockaddrInet6{Port: int(p.Number)}
		err = unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && p.Protocol == UDP {
		err = refuseAll(socket)
	}
	if err == nil && p.Number == Names {
		err = shareNames(socket)
	}
	if err == nil {
		err = unix.Bind(socket, address)
	}
	if err != nil {
		unix.Close(socket)
		return -1, fmt.Errorf("bind: %w", err)
	}
	return socket, nil
}

// refuseAll has the kernel drop what comes for a socket instead of keeping it for nobody.
func refuseAll(socket int) error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	return unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
}
