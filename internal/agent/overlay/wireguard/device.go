package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Kind is which implementation of WireGuard a device is of.
type Kind string

// The kinds. Auto, and the zero Kind, are the kernel's where it has WireGuard, else Userspace.
const (
	Auto      Kind = "auto"
	Kernel    Kind = "kernel"
	Userspace Kind = "userspace"
)

// DefaultSocket is where the process of a device of userspace listens.
const DefaultSocket = "/run/warren/wireguard.sock"

// Options say which device Open opens.
type Options struct {
	Name   string // of the link, 15 characters at most
	MTU    int
	Socket string // of the process of a device of userspace; empty: DefaultSocket
	Kind   Kind
	Logger *slog.Logger
}

// The smallest MTU is what every IPv4 host must bear; the largest leaves room for WireGuard's own bytes in
// the largest datagram.
const (
	minMTU = 576
	maxMTU = 65535 - 80
)

var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

func (o *Options) check() error {
	if !linkName.MatchString(o.Name) {
		return fmt.Errorf("name %q: it must be 1 to 15 letters, digits and . _ -, beginning with a letter or digit", o.Name)
	}
	if err := checkMTU(o.MTU); err != nil {
		return err
	}
	switch o.Kind {
	case "":
		o.Kind = Auto
	case Auto, Kernel, Userspace:
	default:
		return fmt.Errorf("kind %q: it must be %s, %s or %s", o.Kind, Auto, Kernel, Userspace)
	}
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func checkMTU(mtu int) error {
	if mtu < minMTU || mtu > maxMTU {
		return fmt.Errorf("MTU %d: it must be %d to %d", mtu, minMTU, maxMTU)
	}
	return nil
}

// Device is a WireGuard device that is up. Its methods may be called at the same time, and from any
// goroutine: it stays in the network namespace in which it was opened.
type Device struct {
	name   string
	kind   Kind
	logger *slog.Logger
	links  *links
	implementation

	mu     sync.Mutex
	mtu    int
	port   int
	config Config                         // of the last Apply
	wanted map[wgtypes.Key]netip.AddrPort // its endpoints, of each peer; nil before the first
	keyed  time.Time                      // when it was given another private key than it had
	// greetings are of peers with whom no handshake has been seen yet.
	greetings map[wgtypes.Key]greeting
}

// implementation is what the kernel and userspace each do in their way.
type implementation interface {
	// read returns what the device has, and what it knows of each peer.
	read(ctx context.Context) (Config, []PeerStatus, error)
	write(ctx context.Context, d delta) error
	setMTU(ctx context.Context, mtu int) error
	remove(ctx context.Context) error
	// lost is closed when the device is gone, and by close.
	lost() <-chan struct{}
	close() error
}

// Open opens the node's device in the current network namespace. One of that name that is there already is
// taken up as it is, with its peers and their sessions; one that is not is made.
func Open(ctx context.Context, o Options) (*Device, error) {
	d, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open the WireGuard device %s: %w", o.Name, err)
	}
	return d, nil
}

func open(ctx context.Context, o Options) (*Device, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	links, err := openLinks()
	if err != nil {
		return nil, err
	}
	d := &Device{name: o.Name, logger: o.Logger, links: links, mtu: o.MTU, greetings: map[wgtypes.Key]greeting{}}
	if err := d.take(ctx, o); err != nil {
		return nil, errors.Join(err, d.letGo())
	}
	return d, nil
}

// take makes the device, or takes it up.
func (d *Device) take(ctx context.Context, o Options) (err error) {
	if d.kind, err = d.links.choose(o.Name, o.MTU, o.Kind); err != nil {
		return err
	}
	if err := d.openImplementation(ctx, o.Socket); err != nil {
		return err
	}
	if err := d.raise(ctx); err != nil {
		return err
	}
	have, _, err := d.read(ctx)
	if err != nil {
		return err
	}
	d.port = have.ListenPort
	d.logger.Info("the WireGuard device is up", "device", d.name, "kind", d.kind, "mtu", d.mtu, "port", d.port, "peers", len(have.Peers))
	return nil
}

func (d *Device) openImplementation(ctx context.Context, socket string) error {
	if d.kind == Kernel {
		k, err := openKernel(d.links, d.name)
		if err == nil {
			d.implementation = k
		}
		return err
	}
	p, err := openProcess(ctx, socket, d.name, d.mtu)
	if err == nil {
		d.implementation = p
	}
	return err
}

// raise sees to it that the link is up and has its MTU. Only take and those who hold d.mu call it.
func (d *Device) raise(ctx context.Context) error {
	state, err := d.links.find(d.name)
	if err != nil {
		return err
	}
	if state.mtu != d.mtu {
		if err := d.setMTU(ctx, d.mtu); err != nil {
			return fmt.Errorf("set the MTU to %d: %w", d.mtu, err)
		}
	}
	if !state.up {
		return d.links.up(d.name)
	}
	return nil
}

// Kind returns Kernel or Userspace.
func (d *Device) Kind() Kind { return d.kind }

// Name returns the link's name.
func (d *Device) Name() string { return d.name }

// Port returns the UDP port at which the device listens, as far as this process has seen to it.
func (d *Device) Port() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.port
}

// Apply makes the device have a configuration, by the smallest change: peers that are the same are not
// touched, and keep their sessions. The endpoint of a peer is written when it is not the one wanted the last
// time: a peer that has moved since stays where it is heard. Where an earlier process has configured the
// device, a peer with a session is left where it is heard too.
//
// A peer that is added is greeted, so that there is a handshake with it before there is traffic; see Unanswered.
//
// Apply may be called again after an error, which may leave the device half changed. A port that is in
// use is unix.EADDRINUSE; the device then keeps the one it had and changes nothing else.
func (d *Device) Apply(ctx context.Context, c Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.apply(ctx, c); err != nil {
		return fmt.Errorf("configure the WireGuard device %s: %w", d.name, err)
	}
	return nil
}

func (d *Device) apply(ctx context.Context, c Config) error {
	want, err := c.normal()
	if err != nil {
		return err
	}
	if err := d.raise(ctx); err != nil {
		return err
	}
	have, status, err := d.read(ctx)
	if err != nil {
		return err
	}
	d.port = have.ListenPort
	todo := changes(withEndpoints(have, status, d.wanted, want, time.Now()), want)
	if todo.port != nil {
		if err := d.setPort(ctx, have.ListenPort, want.ListenPort); err != nil {
			return err
		}
		todo.port = nil
	}
	d.config = want
	if todo.privateKey != nil && have.PrivateKey != (wgtypes.Key{}) {
		d.keyed = time.Now() // where it had none, it is the device that is new, and others may have known the key for long
	}
	if !todo.empty() {
		if err := d.writeGreeting(ctx, todo); err != nil {
			return err
		}
		d.logger.Debug("the WireGuard device is configured", "device", d.name, "peers", len(want.Peers), "changed", len(todo.peers), "key", todo.privateKey != nil)
	}
	d.wanted = endpointsOf(want)
	maps.DeleteFunc(d.greetings, func(key wgtypes.Key, _ greeting) bool {
		_, is := d.wanted[key]
		return !is
	})
	return nil
}

func endpointsOf(c Config) map[wgtypes.Key]netip.AddrPort {
	endpoints := make(map[wgtypes.Key]netip.AddrPort, len(c.Peers))
	for _, p := range c.Peers {
		endpoints[p.PublicKey] = p.Endpoint
	}
	return endpoints
}

// setPort has the device listen at another port.
func (d *Device) setPort(ctx context.Context, old, port int) error {
	err := d.write(ctx, delta{port: &port})
	if err == nil {
		d.port = port
		return nil
	}
	err = fmt.Errorf("listen port %d: %w", port, err)
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w: end the program that listens there, or choose another", err)
		// Userspace closes the old socket before it opens the new one.
		if back := d.write(ctx, delta{port: &old}); back != nil {
			err = errors.Join(err, fmt.Errorf("go back to port %d: %w", old, back))
		}
	}
	return err
}

// SetMTU changes the link's MTU.
func (d *Device) SetMTU(ctx context.Context, mtu int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := checkMTU(mtu)
	if err == nil {
		d.mtu = mtu
		err = d.raise(ctx)
	}
	if err != nil {
		return fmt.Errorf("change the WireGuard device %s: %w", d.name, err)
	}
	return nil
}

// Peers tells what the device knows of its peers.
func (d *Device) Peers(ctx context.Context) ([]PeerStatus, error) {
	_, status, err := d.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the WireGuard device %s: %w", d.name, err)
	}
	return status, nil
}

// Lost is closed when the device is gone, or cannot be watched any more: its process died, somebody deleted
// the link. Close it, and open it again. Close and Remove close the channel too, so that who waits does
// not wait for ever.
func (d *Device) Lost() <-chan struct{} { return d.lost() }

// Close lets go of the device, which stays up as it is.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.letGo()
}

func (d *Device) letGo() error {
	d.links.close()
	if d.implementation == nil {
		return nil
	}
	return d.implementation.close()
}

// Remove takes the device down for good, and lets go of it. One that is gone already is no error.
func (d *Device) Remove(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.implementation.remove(ctx)
	if err = errors.Join(err, d.letGo()); err != nil {
		return fmt.Errorf("remove the WireGuard device %s: %w", d.name, err)
	}
	d.logger.Info("the WireGuard device is removed", "device", d.name, "kind", d.kind)
	return nil
}
