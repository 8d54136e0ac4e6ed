package iptables

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// order is that of the tables: who may pass is in force before anybody is sent anywhere.
var order = []string{"raw", "filter", "nat"}

// HasTable tells whether a table is one in which we may have chains.
func HasTable(name string) bool { return slices.Contains(order, name) }

// ruleset is the rules of chains by table and chain.
type ruleset map[string]map[string][]string

// replacing writes a table's chains anew and removes those that are gone.
func (r ruleset) replacing(table string, gone []string) []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "*%s\n", table)
	names := slices.Sorted(maps.Keys(r[table]))
	for _, name := range append(slices.Clone(names), gone...) {
		fmt.Fprintf(&text, ":%s - [0:0]\n", name)
	}
	for _, name := range names {
		for _, rule := range r[table][name] {
			fmt.Fprintf(&text, "-A %s %s\n", name, rule)
		}
	}
	for _, name := range gone {
		fmt.Fprintf(&text, "-X %s\n", name)
	}
	text.WriteString("COMMIT\n")
	return text.Bytes()
}

// into writes the chains that differ.
func (r ruleset) into(wants ruleset) []byte {
	var input bytes.Buffer
	for _, table := range order {
		changed := maps.Clone(wants[table])
		maps.DeleteFunc(changed, func(name string, rules []string) bool {
			had, stood := r[table][name]
			return stood && slices.Equal(had, rules)
		})
		var gone []string
		for name := range r[table] {
			if _, stays := wants[table][name]; !stays {
				gone = append(gone, name)
			}
		}
		if len(changed)+len(gone) > 0 {
			slices.Sort(gone)
			input.Write(ruleset{table: changed}.replacing(table, gone))
		}
	}
	return input.Bytes()
}
