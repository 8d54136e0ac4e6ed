// Package facts describes the machine an agent runs on, for the scheduler and for people: its name,
// platform, capacity, addresses, and the versions of what runs its containers.
//
// Start with Machine. Collect looks anew each time; Changed says when looking is worth while, which
// it learns from the kernel's notices of addresses coming and going and from whoever calls Recheck.
// Nothing is polled. Capacity is what tasks may use: what the operator keeps back is taken off here
// and nowhere else.
package facts
