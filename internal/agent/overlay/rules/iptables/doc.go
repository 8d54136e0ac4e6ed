// Package iptables keeps what Warren has in the tables of iptables.
//
// Start with Shared (shared.go): the few chains that a node has there in any case, in tables that other programs
// use too, and the jumps to them. Where the kernel has no nftables, Backend (backend.go) puts all the facts of
// traffic in force there as well: render.go writes them as rules, ruleset.go turns rules into input for
// iptables-restore, and program.go runs it.
//
// It owns the chains WARREN-* and touches no other program's, nor what is in WARREN-USER, the operator's own.
package iptables
