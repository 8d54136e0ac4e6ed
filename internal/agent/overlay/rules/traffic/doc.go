// Package traffic is what a node is told of services and tasks, and what follows of it for packets: which address
// leads where, with what chance, and who is a member of what.
//
// Start with model.go, the words: a Node, the Services and Tasks that it is told of, all at once as a Set or as a
// Change of what it knows. Facts (facts.go) are what follows of them, and turn every Change into a Delta, the facts
// that change. Where a virtual address or a port leads is a Pool (pool.go).
//
// It decides and has no effects; the packages beside it put facts in force.
package traffic
