// Package planning works out what would come of a change before it is made.
//
// Start with Of, which tells slot by slot what an update would do: which tasks stay, which are replaced or stopped, and
// where new ones would go or why nowhere. Rebalance finds the tasks of a service that would better be elsewhere.
//
// Both are functions of a snapshot, which may be one that is only supposed (state.Snapshot.Suppose). They decide nothing
// by themselves: the replicas loop says which slots there would be, and the scheduler's own view where tasks would go. They
// write nothing, and what comes true of a plan rests on nothing else happening meanwhile.
package planning
