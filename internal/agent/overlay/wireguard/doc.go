// Package wireguard is the node's WireGuard device: the kernel's where the kernel has one, else that of
// wireguard-go, which lives in a process of its own so that traffic goes on whatever becomes of the agent.
//
// Start with Device and Open; config.go says what can be wanted of a device, changes.go what has to be
// done to it so that it has that and no other peer notices. kernel.go and userspace.go are the two
// implementations; serve.go is the process that the latter speaks to, which "warren-agent wireguard" runs.
//
// It owns the link, its MTU and whether it is up, and the peers. Addresses, routes and the bridge are for
// others, and so is what to do when a device is lost. Devices of userspace never get a socket in
// /var/run/wireguard: tools find them there by name, blind to network namespaces, and reconfigure the
// wrong one.
package wireguard
