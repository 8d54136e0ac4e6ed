// Package machine makes several real machines out of one, for tests, the demo and the benchmarks.
//
// A [Lab] is a network with an image registry on it and any number of machines. A [Machine] is
// Debian under systemd-nspawn: its own systemd, containerd and runc, process tree, network
// namespace, cgroups and disk, booted in under a second. Its plug can be pulled and put back, its
// cable too, and its services are ordinary systemd units.
//
// The package owns everything a lab puts on the host and takes all of it away again: on Close, and
// for a lab whose process was killed, when the next lab is made. It knows nothing of clusters: what
// runs on the machines is the caller's business. It needs root.
//
// Start reading at [NewLab], then [Lab.Boot] and [Machine.PowerOn].
package machine
