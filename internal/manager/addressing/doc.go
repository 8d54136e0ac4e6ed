// Package addressing gives out what only one may hold at a time: a subnet to each node, a virtual address and
// published ports to each service.
//
// Start with layout.go, how a cluster's ranges are cut; then loop.go, the control loop, which keeps an account
// (account.go) of what is held and by whom, fed by the changes of the state, and decides from it. It alone writes these
// fields, one proposal after the other, so that nothing is ever given twice.
//
// What has been given stays: a node keeps its subnet and a service its address until it is removed. What becomes free is
// given again as late as possible, so that nobody still knows it by its former holder.
package addressing
