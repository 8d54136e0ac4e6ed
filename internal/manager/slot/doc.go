// Package slot looks at a service's tasks by slot: the place in the service that a task fills,
// and that its replacement fills after it. A replicated service's slots are numbered, a global
// service's are its nodes.
//
// Start with Of, which sorts the tasks of a service into slots, and Slot, which says what stands in
// one: tasks that are wanted, tasks that are being stopped, and ended ones, which are the slot's
// history. The rules that more than one control loop must agree on are here too: when a slot is
// done, how long it backs off after failures, and how a task is made and retired.
//
// The package decides nothing and writes nothing by itself.
package slot
