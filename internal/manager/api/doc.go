// Package api is what users say to a manager: the Connect services for the cluster, nodes, services,
// tasks, events and explanations, over one HTTP handler that also carries the agents' sessions and the logs.
//
// Start with New. Every call passes the same guards, in this order: its outcome is told in one way
// (failure.go), it declares who may call it (access.go), this manager can answer (Membership), its
// fields obey their rules. A handler then reads a snapshot of the state, or writes specs through
// writer (write.go), which proposes a transaction and looks again when the state has moved on.
//
// The package writes what users own, specs, orders for rollouts, the wish to remove and the wish to move tasks, and nothing else: what follows from
// it the control loops decide. The meaning of an unset field is applied where the field is used.
package api
