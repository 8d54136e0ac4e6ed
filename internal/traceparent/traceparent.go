package traceparent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	// Header is the header of a call that is part of a trace.
	Header = "Traceparent"
	// Variable is what holds it in the environment of a program.
	Variable = "TRACEPARENT"
)

// The form is VERSION-TRACE-SPAN-FLAGS, in lower case hexadecimal digits.
const (
	traceAt = 3
	spanAt  = traceAt + 32 + 1
	flagsAt = spanAt + 16 + 1
	length  = flagsAt + 2
)

type key struct{}

// With returns a context that is part of a trace. An empty parent adds nothing.
func With(ctx context.Context, parent string) context.Context {
	if parent == "" {
		return ctx
	}
	return context.WithValue(ctx, key{}, parent)
}

// From returns of which trace a context is part; empty where it is of none.
func From(ctx context.Context) string {
	parent, _ := ctx.Value(key{}).(string)
	return parent
}

// Valid tells whether a text says of which trace something is part.
func Valid(parent string) bool {
	if len(parent) != length || parent[:traceAt] != "00-" || parent[spanAt-1] != '-' || parent[flagsAt-1] != '-' {
		return false
	}
	for _, part := range []string{parent[traceAt : spanAt-1], parent[spanAt : flagsAt-1], parent[flagsAt:]} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return false
		}
	}
	return strings.Trim(parent[traceAt:spanAt-1], "0") != "" && strings.Trim(parent[spanAt:flagsAt-1], "0") != ""
}

// New returns the traceparent of a new trace that is to be recorded.
func New() string {
	drawn := make([]byte, 16+8)
	_, _ = rand.Read(drawn) // which never fails; that all of it is zero does not happen
	return "00-" + hex.EncodeToString(drawn[:16]) + "-" + hex.EncodeToString(drawn[16:]) + "-01"
}

// Recorded is a valid traceparent that says that the trace is recorded.
func Recorded(parent string) string { return parent[:flagsAt] + "01" }

// ID is the trace of a valid traceparent.
func ID(parent string) string { return parent[traceAt : spanAt-1] }

// Below names the span within the same trace that stands for a thing. Everybody who knows the thing comes to the same
// name, so that spans of different machines can stand below one that none of them has to tell the others of. It is empty
// where parent is not valid.
func Below(parent, thing string) string {
	if !Valid(parent) {
		return ""
	}
	digest := sha256.Sum256([]byte(thing))
	return parent[:spanAt] + hex.EncodeToString(digest[:(flagsAt-1-spanAt)/2]) + parent[flagsAt-1:]
}
