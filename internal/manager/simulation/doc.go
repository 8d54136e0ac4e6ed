// Package simulation runs the manager's whole control plane against a cluster that misbehaves: the
// real state machine, control loops and dispatcher, and a couple of hundred simulated agents that
// start, crash, stall, vanish and come back, while services and nodes are changed at random. All of it
// lives in one process in virtual time, so that minutes pass in a moment.
//
// Start with TestTheClusterConvergesWhateverHappens. After every commit the invariants of the task model
// (docs/task-model.md) are checked; when the faults stop, the cluster must come to be as its services
// say. Replay a failure with the seed it prints:
//
//	go test ./internal/manager/simulation -run Converges -seed N -seeds 1
//
// A seed fixes what happens and when in virtual time. It does not fix in which order the goroutines
// of one instant run, so a rare failure may take several runs.
//
// The package holds tests only.
package simulation
