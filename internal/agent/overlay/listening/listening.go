package listening

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How long Await rests between looks. The kernel has no notice for "listens": listen(2) and bind(2)
// wake nobody, and tracing them would need more rights and a newer kernel than Warren asks for. So a
// timer stands here. A program is seen within as long again as it took to start, at most 100 ms,
// and one that takes minutes costs ten looks of 0.1 ms a second.
const (
	firstRest   = time.Millisecond
	longestRest = 100 * time.Millisecond
)

// Protocols of a Port.
const (
	TCP = "tcp"
	UDP = "udp"
)

// A Port is one that a task declares.
type Port struct {
	Protocol string // TCP or UDP
	Number   uint16
}

// String writes it as users do: 80/tcp.
func (p Port) String() string { return strconv.Itoa(int(p.Number)) + "/" + p.Protocol }

// A Place is where to look.
type Place struct {
	Namespace string     // the path of a network namespace: /proc/PID/ns/net, or where it is pinned
	Address   netip.Addr // the task's address there
}

// Await returns nil once every port listens: once a socket takes what is sent to the place's address
// on that port. One that is bound to a loopback address does not count, nor one for IPv6 alone.
//
// It holds on to the namespace: end ctx when the task ends. The error then names the ports that did
// not listen.
func Await(ctx context.Context, at Place, ports []Port) error {
	if len(ports) == 0 {
		return nil
	}
	w, err := open(at, ports)
	if err != nil {
		return err
	}
	defer w.close()

	timer := time.NewTimer(0)
	defer timer.Stop()
	var missing []Port
	for rest := firstRest; ; rest = min(2*rest, longestRest) {
		select {
		case <-ctx.Done():
			return awaited(missing, context.Cause(ctx))
		case <-timer.C:
		}
		if missing, err = w.missing(); err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		timer.Reset(rest)
	}
}

// Missing returns those of ports that do not listen, in their order.
func Missing(at Place, ports []Port) ([]Port, error) {
	if len(ports) == 0 {
		return nil, nil
	}
	w, err := open(at, ports)
	if err != nil {
		return nil, err
	}
	defer w.close()
	return w.missing()
}

func awaited(missing []Port, why error) error {
	if len(missing) == 0 { // ended before the first look
		return fmt.Errorf("wait for ports to listen: %w", why)
	}
	names := make([]string, len(missing))
	for i, p := range missing {
		names[i] = p.String()
	}
	return fmt.Errorf("nothing listens on %s: %w", strings.Join(names, ", "), why)
}

// watch is a place with the ports to look for.
type watch struct {
	at      Place
	ports   []Port
	sockets *sockets
}

func open(at Place, ports []Port) (*watch, error) {
	if !at.Address.IsValid() {
		return nil, errors.New("look for listening ports: the task's address is missing")
	}
	for _, p := range ports {
		if p.Protocol != TCP && p.Protocol != UDP {
			return nil, fmt.Errorf("look for listening ports: %s: protocol must be %s or %s", p, TCP, UDP)
		}
	}
	s, err := openSockets(at.Namespace)
	if err != nil {
		return nil, fmt.Errorf("look for listening ports in %s: %w", at.Namespace, err)
	}
	at.Address = at.Address.Unmap()
	return &watch{at: at, ports: ports, sockets: s}, nil
}

func (w *watch) close() { w.sockets.close() }

func (w *watch) missing() ([]Port, error) {
	missing := slices.Clone(w.ports)
	for _, protocol := range []string{TCP, UDP} {
		wanted := func(p Port) bool { return p.Protocol == protocol }
		if !slices.ContainsFunc(missing, wanted) {
			continue
		}
		found, err := w.sockets.listening(protocol)
		if err != nil {
			return nil, fmt.Errorf("look for listening ports in %s: %w", w.at.Namespace, err)
		}
		missing = slices.DeleteFunc(missing, func(p Port) bool {
			return wanted(p) && slices.ContainsFunc(found, func(s socket) bool {
				return s.port == p.Number && s.takes(w.at.Address)
			})
		})
	}
	return missing, nil
}
