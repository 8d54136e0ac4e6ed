package listening

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// States of sockets, numbered as in the kernel's tcp_states.h. A socket of UDP that is bound and not
// connected is in the state that TCP calls closed.
const (
	stateListen = 10
	stateClosed = 7
)

// loopback is the index of lo in every network namespace.
const loopback = 1

// socket is one that waits for whoever may come.
type socket struct {
	port    uint16
	address netip.Addr // unspecified: all
	device  uint32     // 0: any
	onlyV6  bool
}

// takes tells whether what arrives for an address reaches the socket.
func (s socket) takes(address netip.Addr) bool {
	switch {
	case s.device == loopback:
		return false
	case s.address.IsUnspecified():
		// [::] takes IPv4 too unless the program has asked it not to (IPV6_V6ONLY).
		return s.address.Is4() == address.Is4() || s.address.Is6() && !s.onlyV6
	default:
		return s.address == address
	}
}

// sockets asks for the sockets of one network namespace.
type sockets struct {
	conn *netlink.Conn
}

// openSockets opens the kernel's window into a network namespace. It stays there whatever becomes of path.
func openSockets(path string) (*sockets, error) {
	namespace, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: int(namespace.Fd())})
	if err != nil {
		return nil, err
	}
	return &sockets{conn}, nil
}

func (s *sockets) close() { _ = s.conn.Close() }

// listening returns the sockets of a protocol that wait for whoever may come, of IPv4 and of IPv6.
func (s *sockets) listening(protocol string) ([]socket, error) {
	number, state := byte(unix.IPPROTO_TCP), stateListen
	if protocol == UDP {
		number, state = unix.IPPROTO_UDP, stateClosed
	}
	var all []socket
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		answers, err := s.conn.Execute(request(family, number, state))
		if errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("the kernel cannot list sockets of %s: load its module with \"modprobe %s_diag\" (CONFIG_INET_DIAG): %w", protocol, protocol, err)
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets of %s: %w", protocol, err)
		}
		for _, answer := range answers {
			if found, ok := parse(answer.Data); ok {
				all = append(all, found)
			}
		}
	}
	return all, nil
}

// Sizes and offsets of inet_diag_req_v2 and inet_diag_msg in the kernel's inet_diag.h. Ports and
// addresses are in network order, the rest in the machine's.
const (
	requestSize = 56 // family, protocol, extensions, padding, states (32 bits), and which socket: any
	answerSize  = 72 // family, state, timer, retransmissions, then from here:
	atPort      = 4
	atAddress   = 8
	atDevice    = 40

	attrOnlyV6 = 11 // INET_DIAG_SKV6ONLY, which sockets of IPv6 come with
)

func request(family, protocol byte, state int) netlink.Message {
	data := make([]byte, requestSize)
	data[0], data[1] = family, protocol
	binary.NativeEndian.PutUint32(data[4:], 1<<state)
	return netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
		Data:   data,
	}
}

// parse reads one socket of an answer.
func parse(data []byte) (socket, bool) {
	if len(data) < answerSize {
		return socket{}, false
	}
	s := socket{
		port:   binary.BigEndian.Uint16(data[atPort:]),
		device: binary.NativeEndian.Uint32(data[atDevice:]),
	}
	switch data[0] {
	case unix.AF_INET:
		s.address = netip.AddrFrom4([4]byte(data[atAddress:]))
	case unix.AF_INET6:
		s.address = netip.AddrFrom16([16]byte(data[atAddress:])).Unmap()
	default:
		return socket{}, false
	}
	attributes, err := netlink.NewAttributeDecoder(data[answerSize:])
	if err != nil {
		return socket{}, false
	}
	for attributes.Next() {
		if attributes.Type() == attrOnlyV6 {
			s.onlyV6 = attributes.Uint8() != 0
		}
	}
	return s, attributes.Err() == nil
}
