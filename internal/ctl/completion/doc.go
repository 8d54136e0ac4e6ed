// Package completion completes command lines in bash, zsh and fish.
//
// The scripts it prints are a few lines each: they ask `warrenctl __complete` for candidates, so that
// what completes is always what this binary understands. Candidates come from the kong model itself;
// names of services, nodes and tasks come from the manager, through a function given by the caller.
//
// Start reading at Candidates.
package completion
