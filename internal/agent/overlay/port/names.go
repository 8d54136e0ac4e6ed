package port

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names is the port on which the agent itself answers names, at the node's own address. It may be published all the same:
// then the reservation has all other addresses, and packets for the node's own still reach the agent.
const Names = 53

// namesOwner is the user that sockets of Names belong to, whoever has made them: the kernel lets sockets of one user alone
// share a port. No account has it, or a program of root's that asks for SO_REUSEPORT, as DNS servers do, would come to
// share the port too, and get packets that are the agent's or none at all. It is beyond what systemd gives to anything
// (its "UIDs and GIDs": 2147483648 and up are nobody's).
const namesOwner = 1<<31 + Names

// BesideNames has a socket share Names with others that were told to; it is made for net.ListenConfig's Control. Of two sockets at the same address each would get a part of what comes: it is for the
// caller to see that there is one at each.
func BesideNames(_, _ string, socket syscall.RawConn) error {
	var err error
	return errors.Join(socket.Control(func(fd uintptr) { err = shareNames(int(fd)) }), err)
}

// SharesNames tells whether a socket was made so.
func SharesNames(socket syscall.Conn) bool {
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	shares := 0
	control := raw.Control(func(fd uintptr) { shares, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT) })
	return shares != 0 && control == nil && err == nil
}

func shareNames(socket int) error {
	// It fails without CAP_CHOWN, for all alike, who then share with others of their user.
	_ = unix.Fchown(socket, namesOwner, -1)
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("share port %d: %w", Names, err)
	}
	return nil
}
