// Package state is the replicated state of the cluster as one manager holds it: tables of
// protobuf objects in memory, changed by nothing but the entries of the raft log.
//
// Start with Store. Store.Snapshot gives an immutable view at no cost; Store.Watch gives a view
// and every change after it, in order. Nobody polls. Machine is the raft state machine: it applies
// transactions to the store, whole or not at all, and saves and restores raft snapshots.
//
// A transaction is built with New and proposed through the consensus package. Objects that come
// out of a snapshot are shared by all readers and must never be changed: clone them first.
//
// The package holds no policy, reads no clock and draws no random number, so that every replica
// and every replay of the log ends equal.
package state
