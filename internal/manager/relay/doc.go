// Package relay makes streams on demand: something in the manager wants a stream from a node, such
// as a task's output. Agents accept no connections, so the manager asks over the agent's session
// and the agent dials back.
//
// Start with Exchange. Open asks a node for a stream and waits until its agent has dialled; Relay
// serves the agent's call and splices the two. Nothing is buffered in between: a reader that does
// not read stops the agent by the flow control of HTTP/2.
//
// A stream's id is the permission to send on it: 128 random bits, good once and for ten seconds.
// The package knows nothing of what streams carry.
package relay
