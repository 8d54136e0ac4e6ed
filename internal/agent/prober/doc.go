// Package prober finds out whether the programs of tasks do their work: it asks them by HTTP, TCP or gRPC from
// within their own network namespaces, or runs a program in their containers, at the times their health checks say.
//
// What follows from a probe is decided apart from probing: course.go is pure, and says after each result which
// state a program is in and when to probe it next. check.go makes sense of what users and images say. The
// effects are dial.go and one file for each kind of probe.
//
// It owns no task and restarts nothing: whoever has a program watched is told when something changes. Between two
// probes a watch is one timer of the runtime's and no goroutine.
//
// Start with Prober.Watch.
package prober
