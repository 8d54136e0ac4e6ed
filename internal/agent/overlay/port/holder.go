package port

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	listening = 0x0a // TCP_LISTEN and TCP_TIME_WAIT of net/tcp_states.h
	timeWait  = 0x06

	// somebody is for what /proc does not tell: a socket that is bound and does not listen, or a program out
	// of sight.
	somebody = "another program"
	closing  = "connections that are just closing"
)

// holders tells who has each of the ports. It walks /proc once.
func holders(ports []Port) map[Port]string {
	by := make(map[Port]string, len(ports))
	owners := map[uint64]Port{} // by inode
	for _, p := range ports {
		inodes, ends := sockets(p)
		by[p] = somebody
		if ends {
			by[p] = closing
		}
		for _, inode := range inodes {
			owners[inode] = p
		}
	}
	if len(owners) == 0 {
		return by
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return by
	}
	found := map[Port]int{} // the lowest pid
	for _, proc := range all {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			continue
		}
		descriptors, err := os.ReadDir(filepath.Join(proc, "fd"))
		if err != nil {
			continue // it has ended
		}
		for _, d := range descriptors {
			target, err := os.Readlink(filepath.Join(proc, "fd", d.Name()))
			text, ok := strings.CutPrefix(target, "socket:[")
			if err != nil || !ok {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
			if err != nil {
				continue
			}
			p, ok := owners[inode]
			if lowest, has := found[p]; !ok || has && lowest <= pid {
				continue
			}
			name, err := os.ReadFile(filepath.Join(proc, "comm"))
			if err != nil {
				continue
			}
			found[p] = pid
			by[p] = fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), pid)
		}
	}
	return by
}

// sockets are the inodes of the sockets that have a port: those that listen, or else any other. ends is
// true if there are only remains of connections, which have none.
func sockets(p Port) (inodes []uint64, ends bool) {
	var others []uint64
	for _, family := range []string{"", "6"} {
		// Those of the calling thread's network namespace, which is the process's: its first thread may be
		// away in a task's.
		text, err := os.ReadFile("/proc/thread-self/net/" + string(p.Protocol) + family)
		if err != nil {
			continue // such as without IPv6
		}
		for line := range strings.Lines(string(text)) {
			one, ok := parse(line)
			switch {
			case !ok || one.port != p.Number:
			case one.owner == namesOwner: // the agent's own, which is in nobody's way
			case one.state == timeWait && p.Protocol == TCP:
				ends = true
			case one.state == listening && p.Protocol == TCP:
				inodes = append(inodes, one.inode)
			default:
				others = append(others, one.inode)
			}
		}
	}
	if len(inodes) == 0 {
		inodes = others
	}
	return inodes, ends && len(inodes) == 0
}

// socket is one as /proc tells of it.
type socket struct {
	port                uint16
	state, owner, inode uint64
}

// parse reads a line of /proc/net/tcp and its like, as proc_pid_net(5) has them.
func parse(line string) (s socket, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return s, false
	}
	_, local, ok := strings.Cut(fields[1], ":")
	number, err1 := strconv.ParseUint(local, 16, 16)
	state, err2 := strconv.ParseUint(fields[3], 16, 8)
	owner, err3 := strconv.ParseUint(fields[7], 10, 32)
	inode, err4 := strconv.ParseUint(fields[9], 10, 64)
	return socket{uint16(number), state, owner, inode}, ok && errors.Join(err1, err2, err3, err4) == nil
}
