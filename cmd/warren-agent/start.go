//go:build !documents

package main

import (
	"os"

	"github.com/cuemby/warren/internal/agent/initproc"
)

func main() {
	if initproc.Invoked(os.Args) { // in a container, where this program is process 1
		os.Exit(initproc.Run(os.Args[1:]))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
