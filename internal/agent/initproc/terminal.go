package initproc

import (
	"os"
	"syscall"
	"unsafe"
)

// isTerminal tells whether standard input is a terminal, which only the kernel knows.
func isTerminal() bool {
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, os.Stdin.Fd(), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0
}
