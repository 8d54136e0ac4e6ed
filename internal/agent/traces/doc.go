// Package traces is what an agent tells of traces: the steps by which a task that is part of one comes to run on this node. It is
// the supervisor's tracer, and exists only where spans are sent.
package traces
