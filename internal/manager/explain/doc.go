// Package explain tells why a service, a task or a node is not as it is wanted.
//
// Start with Service, Task and Node: functions of a snapshot, of the events that are remembered and of the time, which
// compare what is wanted with what is. What ails a task is found out in one place (ailment.go); causes.go groups what
// ails many tasks alike and puts the likeliest cause first, and says what to do. happening.go tells in the order of time
// what has happened, out of the state where that remembers it and out of events where it does not.
//
// The package reads what others have found, the scheduler, the agents and the loops. It decides nothing and writes nothing.
package explain
