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
func (f filters[T]) apply(items []T, given []string) ([]T, error) {
	wanted := map[string][]string{}
	for _, g := range given {
		key, value, ok := strings.Cut(g, "=")
		if _, known := f[key]; !ok || !known {
			return nil, failure.Usagef("--filter %s: not KEY=VALUE with a KEY of %s", g, strings.Join(slices.Sorted(maps.Keys(f)), ", "))
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

// hasLabel tells whether labels have KEY or KEY=VALUE.
func hasLabel(labels map[string]string, wanted string) bool {
	key, value, valued := strings.Cut(wanted, "=")
	has, ok := labels[key]
	return ok && (!valued || has == value)
}
