// Package consensustest is for tests of several managers in one process: a network that loses and delays
// what raft says, one way or both, and a disk in memory that can be full.
//
// Start with Network. Nothing here may be imported by a program.
package consensustest
