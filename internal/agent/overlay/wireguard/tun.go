package wireguard

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// tunDevice is a TUN device whose link nobody but its owner watches. What wireguard-go has for that
// gives up, and the device with it, when more links of the machine change at once than a netlink socket
// holds; a node that starts hundreds of containers does that.
type tunDevice struct {
	tun.Device
	name string

	mu     sync.Mutex
	events chan tun.Event
	closed bool
}

// openTUN makes a TUN device in the network namespace of the current thread.
func openTUN(name string, mtu int) (*tunDevice, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a TUN device: open %s: %w", path, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		// With offloads, which are worth 3.5 times the throughput; not one that is there already.
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a TUN device: %w", err), unix.Close(fd))
	}
	device, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("make a TUN device: %w", err) // fd is closed with the file that it is of now
	}
	t := &tunDevice{Device: device, name: name, events: make(chan tun.Event, 1)}
	if err := t.setMTU(mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("make a TUN device: %w", err), t.Close())
	}
	return t, nil
}

// setMTU sets the link's MTU and tells the WireGuard device, which pads packets up to it.
func (t *tunDevice) setMTU(mtu int) error {
	links, err := openLinks()
	if err != nil {
		return err
	}
	defer links.close()
	if err := links.setMTU(t.name, mtu); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		select {
		case t.events <- tun.EventMTUUpdate:
		default: // there is one to be read, and the MTU is looked up when it is
		}
	}
	return nil
}

// Events implements tun.Device.
func (t *tunDevice) Events() <-chan tun.Event { return t.events }

// Close implements tun.Device. It may be called again.
func (t *tunDevice) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	close(t.events)
	return t.Device.Close()
}
