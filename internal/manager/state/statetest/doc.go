// Package statetest is for tests of what works on the state: an in-memory stand-in for the
// consensus node, objects ready to be put in tables, and a look at what a transaction writes.
//
// Start with New, which gives a store that holds the objects named, and NewProposer, which writes
// to it as raft would: every transaction is encoded, applied by the real state machine at the next
// index, and refused for the same reasons. Nothing here may be imported by a program.
package statetest
