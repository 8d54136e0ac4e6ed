// Package forward lets any manager answer any call: what only the leader can answer is passed on to it as the
// whole HTTP request that it is, streams too, in the caller's name.
//
// It owns the connection to the leader, the wait for an election, the repetition of calls that certainly
// were not carried out, the end of streams to a manager that leads no longer, and the reads that are
// answered from this manager's own state while nobody leads. It never passes on a call that another
// manager has passed on, and it decides nothing about permission: whoever may not call is refused by the
// API, here or at the leader.
//
// Start with Forwarder.ServeHTTP. Leadership is what it asks about who leads.
package forward
