// Package events tells what happens in the cluster, in words for people and scripts.
//
// Start with From, a pure function that words one change of the state, and then Log, which follows
// the state's feed, remembers the last 10,000 events in memory and hands them to any number of
// readers, each at its own pace.
//
// Events are derived from the state and never written to it: nothing depends on them, and a manager
// that starts anew has those that its raft log still holds. Since tells how far back they go.
package events
