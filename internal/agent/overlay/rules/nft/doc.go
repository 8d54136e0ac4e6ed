// Package nft puts the facts of traffic in force in a table of nftables.
//
// Start with Backend (backend.go), which speaks to the kernel over netlink. layout.go says in which sets and chains
// the facts stand, and turns facts that change into sets and chains that change; schema.go has the rules that look
// into them, made of the expressions in expressions.go.
//
// It owns the tables warren-a and warren-b, of which one is in force, and touches no other. It keeps count of what it
// has written and never reads it back.
package nft
