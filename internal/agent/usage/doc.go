// Package usage tells what this node and its tasks use: processor, memory and network, as rates between two
// looks at what the kernel counts. It looks only while somebody watches, and keeps nothing in between.
//
// Start with Meter and its Watch; machine.go reads what the whole machine uses.
package usage
