// Package rules is what the kernel does with packets on a node of the overlay: services' virtual addresses,
// published ports, masquerading, and who may speak to whom.
//
// Start with Rules, which a node has one of. What should stand is apart from how it is put in force: model.go
// has the words, facts.go turns services and tasks into facts (which address leads where, who is a member of
// what) and every change into the facts that change. Two backends make facts real: nftables (layout.go says
// in which sets and chains, schema.go in which rules) and, where the kernel has none, iptables (render.go).
// In both, base.go keeps the few chains in the tables that other programs share, watch.go restores what others
// take away and cut.go ends connections that cannot go on.
//
// It owns the tables warren-a and warren-b of nftables and the chains WARREN-* of iptables, and never
// touches another's. It makes no link, route or sysctl; see Node for what it counts on.
package rules
