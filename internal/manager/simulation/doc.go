// Package simulation runs the manager's whole control plane against a cluster that misbehaves: the
// real state machine, control loops and dispatcher, and simulated agents that start, crash, fall ill,
// vanish and come back, while services and nodes are changed at random and leaders come and go. All of it
// lives in one process in virtual time, so that minutes pass in a moment.
//
// Start with TestSmallWorldsConvergeWhateverHappens, which goes through thousands of worlds of a few nodes, and
// TestTheClusterConvergesWhateverHappens, where dozens and hundreds are. After every commit the rules are checked (invariants_test.go):
// those of what must always hold that a control plane can keep, and the invariants of the task model (docs/task-model.md).
// When the faults stop, the cluster must come to be as its services say and say so, write nothing more, and keep nothing of what is removed. More of them with
//
//	go test ./internal/manager/simulation -run SmallWorlds -worlds 100000 -timeout 2h
//
// What happens in a world is a list of happenings, each drawn from randomness of its own (happenings_test.go). Where a rule is broken, as
// many of them are left out as can be (shrink_test.go), and what is left is told in words, with the rule, what there is to know of the service and the
// command that has the same happen again:
//
//	go test ./internal/manager/simulation -run SmallWorlds -worlds 1 -seed N -only=3,7,12
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
