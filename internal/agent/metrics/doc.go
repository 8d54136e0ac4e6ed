// Package metrics is what an agent measures, for Prometheus. It observes the supervisor and the prober, and asks
// the rest at a scrape: how tasks stand, what their control groups and network namespaces count, how the
// overlay stands.
//
// What is labelled by task is of tasks that are on the node now, so it is bounded by what fits there; nothing
// is labelled by connection, peer or time. Begin at Metrics.
package metrics
