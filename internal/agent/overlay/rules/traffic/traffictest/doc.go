// Package traffictest draws what a node may be told of services and tasks, for the tests of all that puts traffic's
// facts in force.
package traffictest
