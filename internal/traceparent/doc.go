// Package traceparent says of which trace something is part, in the words of the W3C (https://www.w3.org/TR/trace-context/):
// a header, a variable of the environment and a field of objects hold it in the same form. It carries that through contexts,
// and knows nothing of how traces are recorded: package tracing does, which few may import.
package traceparent
