// Package rollout is the control loop that moves tasks which are not where or what they should be: of
// another revision, on a node that is drained, or on one that the placement no longer allows. It keeps the record of each
// service's rollout, and goes back where one fails.
//
// Start with decide. It looks at every slot (survey.go; due.go and trial.go say what it sees in a task), takes the record on as far as
// it goes (record.go; turn.go where both revisions are kept side by side), finishes what was begun in the slots (settle.go,
// pair.go), and begins as many replacements as the policy lets be underway at a time (advance.go). Of two live tasks in one slot,
// this loop alone decides which one goes.
//
// It never touches a slot that holds no live task: filling it is the replicas loop's. Package policy says by what rules, and
// package shares what the record means for connections.
package rollout
