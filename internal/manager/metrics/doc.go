// Package metrics is what a manager measures, for Prometheus. It is the observer of the API, of the control
// loops and of the raft node, follows the feed for how long tasks take to be placed and to run, and counts
// the rest in a snapshot when it is asked.
//
// A label is bounded by what users create (service), by the code (loop, rpc) or by an enumeration (state,
// code), never by connections or time. Begin at Metrics; what is counted at a scrape is in contents.go and standing.go.
package metrics
