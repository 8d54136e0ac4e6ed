// Package rules is what the kernel does with packets on a node of the overlay: services' virtual addresses,
// published ports, masquerading, and who may speak to whom.
//
// Start with Rules, which a node has one of: it chooses between two backends, has them put in force what it is told,
// and restores what others take away (watch.go). Each of its parts is a package: traffic turns services and tasks into
// facts, and every change into the facts that change; nft makes facts real in nftables and iptables does where the kernel has
// none, and keeps the few chains in the tables that other programs share; conntrack ends connections that cannot go on;
// netfilter is the network namespace that all of it is in. Of these traffic is for all to read, and none knows rules.
//
// It owns the tables warren-a and warren-b of nftables and the chains WARREN-* of iptables, and never
// touches another's. It makes no link, route or sysctl; see traffic.Node for what it counts on.
package rules
