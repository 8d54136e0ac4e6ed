// Package agent puts a node's agent together: it opens what the agent works with, connects the parts,
// and ends them in reverse order. It decides nothing.
//
// Start with Run. While the machine is no member of a cluster it waits to be told to join one, on its unix
// socket (control) or by its configuration; node.go is its way between joining and leaving. The membership
// has the node's certificate. The session hears what the manager wants and hands it to the supervisor; the
// supervisor makes it real with the container runtime and says what it observes; the session reports
// that. The store keeps what must outlive the process, facts describes the machine, and containers.go
// is the seam between the supervisor's view of containers and containerd's.
//
// Ending an agent stops no container. The next agent on the same folders takes them up.
package agent
