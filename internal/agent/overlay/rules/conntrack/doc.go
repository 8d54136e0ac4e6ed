// Package conntrack cuts connections that cannot go on from the kernel's table of connections, in which it decides
// once for each where it leads.
//
// Start with Cutter, which is told of changes and cuts in its own time; stale.go says which connections it cuts, by
// what is known of traffic when it comes to them.
//
// It makes no rule, and cuts nothing that could go on.
package conntrack
