// Package netfilter is the packet filter of one network namespace, as far as several of the packages beside it
// have to look at it or start programs in it: which namespace it is, whether bridged packets pass it too, how many
// rules stand in a table.
//
// Start with Namespace. It changes nothing in the kernel.
package netfilter
