package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// tally counts things by what they are called.
type tally map[string]int

func (t tally) total() int {
	sum := 0
	for _, count := range t {
		sum += count
	}
	return sum
}

func (t tally) add(more tally) {
	for name, count := range more {
		t[name] += count
	}
}

func (t tally) print(w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(w, "%6d × %s\n", t[name], name)
	}
}
