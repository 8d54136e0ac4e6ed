// Package tracing records spans and sends them to an OTLP receiver, in batches, by HTTP: the daemons' traces are made of it.
// OpenTelemetry's SDK samples and gathers; here are its set-up, the way out, and spans of what is over already, which is how
// most of Warren's come about: whoever observes a decision knows when it began.
//
// It never decides what is traced: see internal/manager/traces and internal/agent/traces. What is part of a trace is told by
// package traceparent. Nothing of this runs where no receiver is configured. Begin at Start.
package tracing
