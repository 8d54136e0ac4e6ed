package placement

import (
	"errors"
	"fmt"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// attribute is something about a node that rules can name.
type attribute struct {
	kind kind
	// label is the label's name of nodeLabel and engineLabel.
	label string
}

type kind uint8

const (
	anything kind = iota
	nodeID
	nodeHostname
	nodeIP
	platformOS
	platformArch
	nodeLabel
	engineLabel
)

// keys are the attributes' names. Those that end in a dot want a label's name behind them.
var keys = [...]string{
	nodeID:       "node.id",
	nodeHostname: "node.hostname",
	nodeIP:       "node.ip",
	platformOS:   "node.platform.os",
	platformArch: "node.platform.arch",
	nodeLabel:    "node.labels.",
	engineLabel:  "engine.labels.",
}

const knownKeys = "node.id, node.hostname, node.ip, node.platform.os, node.platform.arch, node.labels.KEY, engine.labels.KEY"

func (a attribute) String() string { return keys[a.kind] + a.label }

// of returns n's value of the attribute, and whether it has one. A node has many addresses, so
// nodeIP is not asked for here.
func (a attribute) of(n *warrenv1.Node) (value string, has bool) {
	switch a.kind {
	case nodeID:
		return n.GetMeta().GetId(), true
	case nodeHostname:
		return n.GetFacts().GetHostname(), true
	case platformOS:
		return n.GetFacts().GetOs(), true
	case platformArch:
		return n.GetFacts().GetArch(), true
	case nodeLabel:
		value, has = n.GetSpec().GetLabels()[a.label]
	case engineLabel:
		value, has = n.GetFacts().GetEngineLabels()[a.label]
	}
	return value, has
}

func parseAttribute(s string) (attribute, error) {
	for k := nodeID; int(k) < len(keys); k++ {
		name := keys[k]
		if !strings.HasSuffix(name, ".") {
			if strings.EqualFold(s, name) {
				return attribute{kind: k}, nil
			}
			continue
		}
		if len(s) < len(name) || !strings.EqualFold(s[:len(name)], name) {
			continue
		}
		label := s[len(name):]
		if label == "" || strings.ContainsAny(label, " \t\r\n=!") {
			return attribute{}, fmt.Errorf("%q is not a label: write %szone", s, name)
		}
		return attribute{kind: k, label: label}, nil
	}
	return attribute{}, unknownKey(s)
}

func unknownKey(s string) error {
	switch {
	case s == "":
		return errors.New("nothing before the operator: write a key such as node.labels.zone there")
	case strings.EqualFold(s, "node.role"):
		return errors.New("nodes have no role here: set a label with \"warrenctl node update --label-add role=manager NODE\" and use node.labels.role")
	}
	if meant := nearest(s); meant != "" {
		return fmt.Errorf("unknown key %q: did you mean %s?", s, meant)
	}
	return fmt.Errorf("unknown key %q: use one of %s", s, knownKeys)
}

// nearest returns the key that s was probably meant to be, empty where there is none near.
func nearest(s string) string {
	folded := strings.ToLower(s)
	switch folded {
	case "os", "node.os", "platform.os":
		return keys[platformOS]
	case "arch", "node.arch", "platform.arch", "node.architecture":
		return keys[platformArch]
	case "node.name", "name", "host", "node.host":
		return keys[nodeHostname]
	case "node.addr", "node.address":
		return keys[nodeIP]
	}
	best, distance := "", 3
	for k := nodeID; int(k) < len(keys); k++ {
		name, rest := keys[k], ""
		written := folded
		if strings.HasSuffix(name, ".") {
			// Compare what stands before the label's name, and keep that as it was written.
			dot := strings.IndexByte(s, '.')
			if second := strings.IndexByte(s[dot+1:], '.'); dot >= 0 && second >= 0 {
				dot += 1 + second
			}
			if dot < 0 || dot == len(s)-1 {
				continue
			}
			written, rest = strings.ToLower(s[:dot+1]), s[dot+1:]
		}
		for _, short := range []string{name, strings.TrimPrefix(name, "node.")} {
			if d := editDistance(written, short); d < distance {
				best, distance = name+rest, d
			}
		}
	}
	return best
}

// editDistance is the number of bytes to insert, delete or replace that turn a into b.
func editDistance(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return max(len(a), len(b)) // too far apart to be worth the exact figure
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
