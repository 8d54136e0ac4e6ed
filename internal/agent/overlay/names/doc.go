// Package names is the DNS server that each node runs on its bridge address for its containers.
//
// Start with Server. A question goes to the zone first (zone.go, reverse.go), which answers the
// cluster's names from the Directory, on this node and at once; what is not the cluster's goes to the
// resolvers of the host (forward.go, upstream.go) and into a small cache. A name under warren.internal
// never leaves the node. conf.go is what containers find in their /etc/resolv.conf.
//
//	web, web.warren.internal             the service's VIP, or its tasks where it has none
//	tasks.web[.warren.internal]          the addresses of all its tasks
//	web.1[.warren.internal], 1.web…      one task. web.1 is how Warren writes it everywhere, reverse
//	                                     names too; URLs demand 1.web, as a host that ends in a
//	                                     number must be an address there (WHATWG URL, 3.5)
//	_http._tcp.web…, _8080._tcp.web…     SRV, by a port's name or number, of any of the above
//
// It knows no service itself, keeps nothing on disk, and answers nobody but the cluster's addresses
// and the node.
package names
