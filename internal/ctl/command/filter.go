package command

import (
	"maps"
	"slices"
	"strings"

	"github.com/cuemby/warren/internal/ctl/failure"
)

// filters are the keys that a list can be filtered by, and what each means.
type filters[T any] map[string]func(item T, value string) bool

// apply keeps the items that all of the given KEY=VALUE filters let through: of one key any value
// will do, except for labels, which must all be there.
// Keys among words take only those.
func (f filters[T]) apply(items []T, given []string, words filterWords) ([]T, error) {
	wanted := map[string][]string{}
	for _, g := range given {
		key, value, ok := strings.Cut(g, "=")
		if _, known := f[key]; !ok || !known {
			return nil, failure.Usagef("--filter %s: not KEY=VALUE with a KEY of %s", g, strings.Join(slices.Sorted(maps.Keys(f)), ", "))
		}
		if known := words[key]; known != nil && !slices.ContainsFunc(known, func(w string) bool { return strings.EqualFold(w, value) }) {
			return nil, failure.Usagef("--filter %s: %s is one of %s", g, key, strings.Join(known, ", "))
		}
		wanted[key] = append(wanted[key], value)
	}
	if len(wanted) == 0 {
		return items, nil
	}
	return slices.DeleteFunc(items, func(item T) bool {
		for key, values := range wanted {
			holds := func(value string) bool { return f[key](item, value) }
			if strings.HasSuffix(key, "label") {
				if slices.ContainsFunc(values, func(v string) bool { return !holds(v) }) {
					return true
				}
			} else if !slices.ContainsFunc(values, holds) {
				return true
			}
		}
		return false
	}), nil
}

// filterWords are, by key of a filter, the values that there are, where not any text is one.
type filterWords map[string][]string

// wordsOf returns what the values of an enum are called, in the order of their numbers.
func wordsOf[E ~int32](names map[int32]string, word func(E) string) []string {
	var all []string
	for _, number := range slices.Sorted(maps.Keys(names)) {
		if w := strings.ToLower(word(E(number))); w != "unspecified" && !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return all
}

// hasLabel tells whether labels have KEY or KEY=VALUE.
func hasLabel(labels map[string]string, wanted string) bool {
	key, value, valued := strings.Cut(wanted, "=")
	has, ok := labels[key]
	return ok && (!valued || has == value)
}
