//go:build linux

// Demo shows Warren at work: a cluster of three machines on this one, a service on it, a crash, and
// every command as its user would type it, with what it really printed. "make demo" runs it.
//
// With -keep the cluster stays up, held by a process in the background, until -remove.
// Start reading at tell, in story.go.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	keep := flag.Bool("keep", false, "leave the cluster up")
	remove := flag.Bool("remove", false, "remove the cluster that was left up")
	holding := flag.Bool("hold", false, "be the process that holds a cluster left up (internal to -keep)")
	repository := flag.String("apt", "build/apt", "`directory` of the apt repository with Warren's packages")
	drawn := flag.String("picture", "", "also draw what is shown, as an SVG, in this `file`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch {
	case *drawn != "":
		err = draw(ctx, *repository, *drawn)
	case *remove:
		err = removeKept(ctx)
	case *holding:
		err = hold(ctx, *repository)
	case *keep:
		err = showAndKeep(ctx, *repository)
	default:
		err = show(ctx, *repository)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
