// Package overlay is the node's overlay manager: it puts this machine's tasks on the cluster's network.
//
// Start with Overlay. What managers tell comes in by Configure, HeedPeers and HeedEndpoints, which wait for nothing; Run, which is the
// one that acts, brings the network up (raise.go) and keeps it as it should be. The supervisor asks for tasks' places
// (places.go). What is told back is Status and InForce.
//
// Each part of the network is a package of its own below this one: wireguard the device, link the bridge and the wires,
// lease the addresses, rules what the kernel does with packets, names the DNS server, port the published ports, listening
// whether a program takes connections, catalog what is known of services and tasks. They do not know each other; here
// they meet.
//
// The network outlives the agent: nothing is taken down when Run ends, and the next agent takes it up from what it
// finds and what was recorded. Only Remove takes it down.
package overlay
