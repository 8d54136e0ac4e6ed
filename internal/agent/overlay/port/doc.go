// Package port reserves a host's ports for the services that publish them.
//
// Published ports are opened by rules that change packets' addresses before any socket sees them. So a
// program of the host's that listens there too would fall silent without a word, and one that starts
// later would seem to start well. Keeper therefore binds the ports: others are told that the address is in
// use, and what others have is found out, with the program's name.
//
// One port the agent has itself, at one address: names.go has the two go together.
//
// The sockets carry no traffic. Nothing here knows services, tasks or rules.
package port
