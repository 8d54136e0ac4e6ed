// Package audit writes down who did what: one line for each call of an RPC that changes something
// (the write option in proto/warren/v1), whether it was done or refused.
//
// Start with Log, which is the outermost interceptor of the API, so that it sees refusals too, and a
// handler around it, for calls that cannot even be read. Lines go to the manager's log with audit=true and,
// where there is one, to a file of their own. A manager that passes a call on writes nothing: the one that
// answers does, with the caller it is told of. What was asked for is told by names and ids alone
// (object.go), never by a whole message.
package audit
