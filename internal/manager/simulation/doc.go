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
// TestUsersSeeOneManagerThatNeverFails is about three managers: real raft, state and API, on a network that
// loses and delays messages, one way and both, with managers killed, disks full and the lead handed over.
// Users create, change, scale, remove and get services meanwhile, and package test/history looks for an
// order of all they asked for that explains all they were told, as if by one manager that never fails. Each seed
// runs many schedules of faults; more of them with
//
//	go test ./internal/manager/simulation -run NeverFails -seeds 100 -schedules 100 -timeout 1h
//
// and with -reads leased one sees what comes of it when a manager that believes to lead answers without
// making sure.
//
// The package holds tests only.
package simulation
