// Package rollout is the control loop that moves tasks which are not where or what they should be: of
// an old revision, on a node that is drained, or on one that the placement no longer allows.
//
// Start with decide. It looks at every slot that holds a live task, finds the tasks that are due, and
// replaces as many at a time as the service's update policy says: by starting the new task first and
// stopping the old one when the new one serves, or by stopping the old one first, after which the replicas
// loop fills the slot. It does not go on while replacements fail. Of two live tasks in one slot, it alone
// decides which one goes.
//
// It never touches a slot that holds no live task: filling it is the replicas loop's.
package rollout
