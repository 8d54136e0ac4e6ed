package scheduler

import (
	"strings"

	"github.com/cuemby/warren/internal/manager/placement"
)

// terrain is all nodes by their values of a list of spread preferences.
type terrain struct {
	root *region
	// leaves are the innermost regions of the nodes and places theirs in those, both by rank.
	leaves []*region
	places []int
}

// region is the nodes that share the values of the first few preferences.
type region struct {
	value   string
	regions []*region // by the next preference, in the order of the nodes' ids
	byValue map[string]*region
	nodes   []*node // of an innermost region
	order   *order  // of these
}

// terrainsKept bounds the terrains that are kept up to date; beyond it they are made as needed.
const terrainsKept = 16

// terrain returns the terrain of spread.
func (v *view) terrain(spread []placement.Preference) *terrain {
	var key strings.Builder
	for _, p := range spread {
		key.WriteString(p.String())
		key.WriteByte('\n')
	}
	t := v.terrains[key.String()]
	if t == nil {
		t = newTerrain(v.inOrder(), spread)
		if v.terrains == nil || len(v.terrains) >= terrainsKept {
			v.terrains = map[string]*terrain{}
		}
		v.terrains[key.String()] = t
	}
	return t
}

// newTerrain makes the terrain of all nodes.
func newTerrain(all *order, spread []placement.Preference) *terrain {
	t := &terrain{root: &region{}}
	for _, n := range all.nodes {
		r := t.root
		for _, p := range spread {
			r = r.under(p.Of(n.object))
		}
		t.leaves = append(t.leaves, r)
		t.places = append(t.places, len(r.nodes))
		r.nodes = append(r.nodes, n)
	}
	if len(spread) == 0 {
		t.root.order = all
		return t
	}
	for _, r := range t.leaves {
		if r.order == nil {
			r.order = newOrder(r.nodes)
		}
	}
	return t
}

// under returns r's region of that value, and makes it where there is none yet.
func (r *region) under(value string) *region {
	inner := r.byValue[value]
	if inner == nil {
		inner = &region{value: value}
		if r.byValue == nil {
			r.byValue = map[string]*region{}
		}
		r.byValue[value] = inner
		r.regions = append(r.regions, inner)
	}
	return inner
}
