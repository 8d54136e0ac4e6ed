// Package store is what an agent keeps on disk: one BoltDB file with where the managers are,
// the node's last assignments, and how far each task had come.
//
// With it an agent that restarts, or a machine that reboots, goes on with its tasks before it has
// reached a manager. Start with Store. Writes are group-committed: they gather while the disk is
// busy and cost one sync together. Nobody waits for the disk except who is about to destroy what
// the record replaces, such as a stopped container that still holds its exit code; a Commit is what
// they wait on.
//
// The package knows nothing of containers, and decides nothing.
package store
