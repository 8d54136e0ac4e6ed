// Package loop drives control loops. A control loop compares what is wanted with what is and
// decides on transactions; it is a pure decision with a thin driver, and the driver is written
// once, here.
//
// Run watches the state, lets the loop observe every change, asks it to decide, proposes what it
// decided, and sleeps until the next change or the time the loop asked to be woken at. Keyed makes
// a loop of a decision about one object at a time (a service, a node), which is what most are.
//
// Loops never call each other, nor an agent. They meet in the state alone. While a proposal is on
// its way further changes gather, so a busy loop works in larger bites and an idle one acts on the
// first change at once.
package loop
