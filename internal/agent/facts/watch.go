package facts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long addresses must have been quiet: one change of the network is many notices, and a
// container's interface that comes and goes is none of ours.
const settle = time.Second

// Watch makes Changed readable when the machine's addresses have changed, until ctx ends.
func (m *Machine) Watch(ctx context.Context) error {
	notices, err := addressNotices()
	if err != nil {
		return fmt.Errorf("watch the machine's addresses: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { notices.Close() })
	defer stop()
	defer notices.Close()

	settled := time.AfterFunc(settle, m.recheckAddresses)
	defer settled.Stop()
	for buffer := make([]byte, 4096); ; {
		_, err := notices.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // some were lost: they are notices all the same
			return fmt.Errorf("watch the machine's addresses: %w", err)
		}
		settled.Reset(settle)
	}
}

// recheckAddresses makes Changed readable unless the addresses are those last collected.
func (m *Machine) recheckAddresses() {
	now := addresses()
	m.mu.Lock()
	same := slices.Equal(now, m.addresses)
	m.mu.Unlock()
	if !same {
		m.Recheck()
	}
}

// addressNotices opens the kernel's stream of notices about addresses.
func addressNotices() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}
