// Package traffic reads what network links have carried, as the kernel counts it: those of this machine, and
// those of a program's network namespace. It keeps nothing and sets nothing.
package traffic
