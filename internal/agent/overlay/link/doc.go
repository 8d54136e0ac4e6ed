// Package link lays a node's wires: the bridge, a network namespace and a veth for each task, and the
// addresses and routes that join them with each other and with the WireGuard device.
//
// Start with Wires: Up makes what the node has one of, Attach and Detach what each task has. All of it
// compares what should be with what the kernel has and changes the rest, so any call may be made again
// after a crash half-way. Nothing is remembered between two agents: links are found by name, tasks by the
// alias of their veth and the file of their namespace, routes by their protocol number.
//
// Tasks have their address as a /32 and know one neighbour, the node, so everything they send is routed by
// the host. The package makes no device between nodes, writes no rules and gives no addresses out.
package link
