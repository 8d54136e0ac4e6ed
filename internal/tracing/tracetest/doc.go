// Package tracetest is a receiver of spans for tests: it takes what OTLP posts by HTTP, and tells what it has taken.
package tracetest
