// Package scheduler is the control loop that chooses a node for every pending task.
//
// Start with Scheduler, the loop. It keeps a view of what decides (view.go): what is free on each
// node, where each service's tasks are, and which tasks wait. The view is fed by changes, never by
// reading everything again. judge.go says which nodes fit a task, choose.go and candidates.go which of
// them is best, explain.go why none is; all are functions of the view alone. slots.go keeps what is to be replaced from
// counting. order.go and terrain.go find the emptiest nodes without looking at all of them; trouble.go has those that are
// chosen last, for what went wrong there.
//
// It writes node_id and status of pending tasks (state, since, message), and nothing else. It never
// moves a task, makes none and removes none, and it never polls: what waits is tried again when a
// node that it does not fit on changes for the better.
package scheduler
