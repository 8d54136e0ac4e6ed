// Package overlay says what agents must know of the network: their own part of it (config.go), the other nodes (peer.go)
// and what services are reached by (endpoints.go). All of it follows from the state; nothing is decided here.
//
// The dispatcher asks these functions what to send, and which changes of the state are news to whom.
package overlay
