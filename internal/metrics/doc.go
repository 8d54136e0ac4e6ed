// Package metrics is what the metrics of warren-manager and warren-agent have in common: a registry that
// begins with what is known of every process, and the listener at which Prometheus reads it.
//
// What each daemon measures is in internal/manager/metrics and internal/agent/metrics, and nowhere else:
// the packages that do the work know nothing of Prometheus. They tell an observer of theirs what took
// place, or answer when they are asked at the time of a scrape.
//
// docs/metrics.md describes every metric; a test of each daemon's package keeps it true.
package metrics
