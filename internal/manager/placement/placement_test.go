package placement

import (
	"strings"
	"testing"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func node() *warrenv1.Node {
	return &warrenv1.Node{
		Meta: &warrenv1.Meta{Id: "aaaaaaaaaaaaaaaa"},
		Spec: &warrenv1.NodeSpec{Labels: map[string]string{"zone": "East", "disk.kind": "ssd", "bare": ""}},
		Status: &warrenv1.NodeStatus{
			State: warrenv1.NodeState_NODE_STATE_READY, Addr: "192.0.2.9:53110",
		},
		Facts: &warrenv1.NodeFacts{
			Hostname: "web-1", Os: "linux", Arch: "amd64",
			Addresses:    []string{"10.1.2.3", "fd00::7"},
			EngineLabels: map[string]string{"gpu": "a100"},
		},
	}
}

func TestAConstraintAdmitsTheNodesItDescribes(t *testing.T) {
	for _, c := range []struct {
		expr string
		want bool
	}{
		{"node.id==aaaaaaaaaaaaaaaa", true},
		{"node.id!=aaaaaaaaaaaaaaaa", false},
		{"node.id==b", false},
		{"node.hostname == WEB-1", true},
		{"node.hostname!=web-2", true},
		{"NODE.Hostname==web-1", true},
		{"node.platform.os==Linux", true},
		{"node.platform.arch==x86_64", true},
		{"node.platform.arch!=arm64", true},
		{"node.labels.zone==east", true},
		{"node.labels.zone!=east", false},
		{"node.labels.Zone==east", false},
		{"node.labels.rack==3", false},
		{"node.labels.rack!=3", true},
		{"node.labels.disk.kind==ssd", true},
		{"node.labels.bare!=x", true},
		{"engine.labels.gpu==A100", true},
		{"engine.labels.zone==east", false},
		{"node.ip==10.1.2.3", true},
		{"node.ip==10.1.2.4", false},
		{"node.ip==10.1.0.0/16", true},
		{"node.ip!=10.1.0.0/16", false},
		{"node.ip==fd00::/8", true},
		{"node.ip==192.0.2.9", true},
		{"node.ip==::ffff:10.1.2.3", true},
		{"node.labels.zone==a==b", false},
	} {
		constraint, err := Parse(c.expr)
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		if got := constraint.Matches(node()); got != c.want {
			t.Errorf("%s: matches is %v, want %v", c.expr, got, c.want)
		}
	}
}

func TestAConstraintThatCannotBeReadSaysWhatToWriteInstead(t *testing.T) {
	for expr, remedy := range map[string]string{
		"":                       "write it as node.labels.zone==east",
		"node.labels.zone=east":  "write it as node.labels.zone==east",
		"node.labels.zone":       "write it as node.labels.zone==east",
		"node.labels.zone==":     "write a value behind ==",
		"node.hostname!=":        "write a value behind !=",
		"==east":                 "write a key",
		"node.labels.==east":     "write node.labels.zone",
		"node.labels.a b==east":  "is not a label",
		"node.label.zone==east":  "did you mean node.labels.zone?",
		"nodes.labels.zone==x":   "did you mean node.labels.zone?",
		"labels.zone==east":      "did you mean node.labels.zone?",
		"engine.label.gpu==x":    "did you mean engine.labels.gpu?",
		"hostname==web-1":        "did you mean node.hostname?",
		"node.hostnmae==web-1":   "did you mean node.hostname?",
		"node.name==web-1":       "did you mean node.hostname?",
		"node.os==linux":         "did you mean node.platform.os?",
		"arch==arm64":            "did you mean node.platform.arch?",
		"node.address==10.0.0.1": "did you mean node.ip?",
		"node.role==manager":     "node.labels.role",
		"colour==red":            "use one of node.id",
		"node.ip==web-1":         "write 10.0.0.7 or 10.0.0.0/24",
		"node.ip==10.0.0.0/40":   "write 10.0.0.7 or 10.0.0.0/24",
		"node.id===x":            "use == or !=",
	} {
		_, err := Parse(expr)
		if err == nil {
			t.Errorf("%q was accepted", expr)
		} else if !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: %v: does not say %q", expr, err, remedy)
		}
	}
}

func TestAPlacementAdmitsANodeThatMeetsAllOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		placement *warrenv1.Placement
		want      bool
	}{
		"nothing asked":           {nil, true},
		"one platform of two":     {&warrenv1.Placement{Platforms: []string{"linux/arm64", "linux/amd64"}}, true},
		"another platform":        {&warrenv1.Placement{Platforms: []string{"linux/arm64"}}, false},
		"a platform by uname":     {&warrenv1.Placement{Platforms: []string{"linux/x86_64"}}, true},
		"all constraints met":     {&warrenv1.Placement{Constraints: []string{"node.labels.zone==east", "node.hostname!=web-2"}}, true},
		"one constraint violated": {&warrenv1.Placement{Constraints: []string{"node.labels.zone==east", "node.hostname!=web-1"}}, false},
		"unreadable":              {&warrenv1.Placement{Constraints: []string{"zone"}}, false},
	} {
		if got := Admits(c.placement, node()); got != c.want {
			t.Errorf("%s: admits is %v, want %v", name, got, c.want)
		}
	}
}

func TestANodeIsOpenOnlyWhenReadyAndActive(t *testing.T) {
	for state := range warrenv1.NodeState_name {
		for availability := range warrenv1.NodeAvailability_name {
			n := &warrenv1.Node{
				Status: &warrenv1.NodeStatus{State: warrenv1.NodeState(state)},
				Spec:   &warrenv1.NodeSpec{Availability: warrenv1.NodeAvailability(availability)},
			}
			want := warrenv1.NodeState(state) == warrenv1.NodeState_NODE_STATE_READY && availability <= 1
			if Open(n) != want {
				t.Errorf("open is %v for %v, %v", !want, n.GetStatus().GetState(), n.GetSpec().GetAvailability())
			}
		}
	}
	if Open(&warrenv1.Node{}) {
		t.Error("a node nothing is known of is open")
	}
}

func TestOnlyLabelsAreSpreadOver(t *testing.T) {
	p, err := ParsePreference("node.labels.zone")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Of(node()); got != "East" {
		t.Errorf("the node's value is %q", got)
	}
	for _, s := range []string{"", "zone", "node.id", "node.hostname", "node.labels."} {
		if _, err := ParsePreference(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"node.labels.zone==east", "node.ip != 10.0.0.0/8", "engine.labels.a.b==c", "node.role==x",
		"nod.labels.x==y", "a.b", "==", ".==.", "node.platform.arch==AARCH64", "labels.==x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		c, err := Parse(expr)
		if err != nil {
			if c != (Constraint{}) {
				t.Errorf("%q: an error and a constraint", expr)
			}
			return
		}
		again, err := Parse(c.String())
		if err != nil || again != c {
			t.Errorf("%q prints as %q, which reads as %v, %v", expr, c, again, err)
		}
		c.Matches(node())
		c.Matches(&warrenv1.Node{})
	})
}
