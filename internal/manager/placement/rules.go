package placement

import (
	"fmt"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Rules is a placement made ready for many looks. Make it with Compile once for each placement and
// keep it; it never changes, and the zero Rules admit every node.
type Rules struct {
	platforms   []platform
	constraints []Constraint
	spread      []Preference
}

// platform is an operating system and an architecture, as Go names them.
type platform struct{ os, arch string }

// Preference is something over whose values a service's tasks are spread.
type Preference struct{ key attribute }

// Compile makes rules of a placement, which may be nil. The error names what cannot be read and the
// remedy.
func Compile(p *warrenv1.Placement) (*Rules, error) {
	r := &Rules{}
	for _, s := range p.GetPlatforms() {
		os, arch, ok := strings.Cut(s, "/")
		if !ok || os == "" || arch == "" {
			return nil, fmt.Errorf("platform %q: write it as linux/amd64", s)
		}
		r.platforms = append(r.platforms, platform{goName(os), goName(arch)})
	}
	for _, s := range p.GetConstraints() {
		c, err := Parse(s)
		if err != nil {
			return nil, err
		}
		r.constraints = append(r.constraints, c)
	}
	for _, s := range p.GetSpread() {
		preference, err := ParsePreference(s)
		if err != nil {
			return nil, err
		}
		r.spread = append(r.spread, preference)
	}
	return r, nil
}

// ParsePreference reads what tasks are to be spread over: node.labels.KEY or engine.labels.KEY.
func ParsePreference(s string) (Preference, error) {
	key, err := parseAttribute(strings.TrimSpace(s))
	if err != nil {
		return Preference{}, fmt.Errorf("spread %q: %w", s, err)
	}
	if key.kind != nodeLabel && key.kind != engineLabel {
		return Preference{}, fmt.Errorf("spread %q: only labels can be spread over: use node.labels.KEY or engine.labels.KEY", s)
	}
	return Preference{key}, nil
}

// Of returns n's value of the preference. Nodes that lack the label share the empty value.
func (p Preference) Of(n *warrenv1.Node) string {
	value, _ := p.key.of(n)
	return value
}

// String returns the preference as ParsePreference reads it.
func (p Preference) String() string { return p.key.String() }

// Spread returns the preferences, the foremost first. The slice must not be changed.
func (r *Rules) Spread() []Preference { return r.spread }

// Constraints returns the constraints in the order in which they were written. The slice must not be
// changed.
func (r *Rules) Constraints() []Constraint { return r.constraints }

// Admits tells whether n is of an allowed platform and meets every constraint.
func (r *Rules) Admits(n *warrenv1.Node) bool {
	return r.OnPlatform(n) && r.Violated(n) < 0
}

// OnPlatform tells whether n is of an allowed platform.
func (r *Rules) OnPlatform(n *warrenv1.Node) bool {
	for _, p := range r.platforms {
		if p.os == goName(n.GetFacts().GetOs()) && p.arch == goName(n.GetFacts().GetArch()) {
			return true
		}
	}
	return len(r.platforms) == 0
}

// Violated returns the index of the first constraint that n does not meet, -1 where it meets all.
func (r *Rules) Violated(n *warrenv1.Node) int {
	for i, c := range r.constraints {
		if !c.Matches(n) {
			return i
		}
	}
	return -1
}

// Admits tells whether the placement, which may be nil, allows tasks on n. A placement that cannot be
// read allows none. To ask about many nodes, Compile it.
func Admits(p *warrenv1.Placement, n *warrenv1.Node) bool {
	r, err := Compile(p)
	return err == nil && r.Admits(n)
}

// Open tells whether n takes new tasks: its agent is connected and nobody has paused or drained it.
func Open(n *warrenv1.Node) bool {
	if n.GetStatus().GetState() != warrenv1.NodeState_NODE_STATE_READY {
		return false
	}
	switch n.GetSpec().GetAvailability() {
	case warrenv1.NodeAvailability_NODE_AVAILABILITY_UNSPECIFIED, warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE:
		return true
	}
	return false
}
