// Package lease knows which address of the node's subnet each task has.
//
// Start with Allocator, which is pure: an address freed longest ago is given first, so that whoever still
// knows its former owner has had the most time to forget. Leases keeps an allocator in agreement with
// the record on disk and with the tasks that an agent finds when it starts. What exists is right: a task that
// has an address keeps it, whatever the record says.
//
// The package touches no link and decides nothing about tasks.
package lease
