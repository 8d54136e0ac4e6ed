package placement

import (
	"fmt"
	"net/netip"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Constraint is one condition on nodes, such as node.labels.zone==east. Parse makes it; the zero
// Constraint admits every node.
type Constraint struct {
	key   attribute
	not   bool
	value string
	// network is what node.ip is compared with.
	network netip.Prefix
}

// Parse reads a constraint: a key, == or !=, and a value. Blanks around the three are allowed. The
// keys are node.id, node.hostname, node.ip (its value an address or a CIDR), node.platform.os,
// node.platform.arch, node.labels.KEY and engine.labels.KEY. Values, and all of a key but a label's
// own name, compare without case. The error says what to write instead.
func Parse(expr string) (Constraint, error) {
	left, right, not, ok := split(expr)
	if !ok {
		return Constraint{}, fmt.Errorf("constraint %q: no == or != in it: write it as node.labels.zone==east or node.hostname!=web-1", expr)
	}
	key, err := parseAttribute(left)
	if err != nil {
		return Constraint{}, fmt.Errorf("constraint %q: %w", expr, err)
	}
	c := Constraint{key: key, not: not, value: right}
	switch {
	case right == "":
		return Constraint{}, fmt.Errorf("constraint %q: nothing to compare %s with: write a value behind %s", expr, key, operator(not))
	case strings.ContainsAny(right[:1], "=!<>~"):
		return Constraint{}, fmt.Errorf("constraint %q: unknown operator: use == or !=", expr)
	case key.kind == nodeIP:
		if c.network, err = parseNetwork(right); err != nil {
			return Constraint{}, fmt.Errorf("constraint %q: %w", expr, err)
		}
	case key.kind == platformOS || key.kind == platformArch:
		c.value = goName(right)
	}
	return c, nil
}

// Matches tells whether n meets the constraint.
func (c Constraint) Matches(n *warrenv1.Node) bool {
	if c.key.kind == anything {
		return true
	}
	return c.equals(n) != c.not
}

func (c Constraint) equals(n *warrenv1.Node) bool {
	switch c.key.kind {
	case nodeIP:
		return hasAddressIn(n, c.network)
	case platformOS, platformArch:
		value, _ := c.key.of(n)
		return goName(value) == c.value
	}
	value, has := c.key.of(n)
	return has && strings.EqualFold(value, c.value)
}

// String returns the constraint as Parse reads it.
func (c Constraint) String() string {
	if c.key.kind == anything {
		return ""
	}
	return c.key.String() + operator(c.not) + c.value
}

// split cuts expr at the first of == and !=.
func split(expr string) (left, right string, not, ok bool) {
	for i := range len(expr) - 1 {
		if op := expr[i : i+2]; op == "==" || op == "!=" {
			return strings.TrimSpace(expr[:i]), strings.TrimSpace(expr[i+2:]), op == "!=", true
		}
	}
	return "", "", false, false
}

func operator(not bool) string {
	if not {
		return "!="
	}
	return "=="
}

func parseNetwork(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network: write 10.0.0.7 or 10.0.0.0/24", s)
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// hasAddressIn tells whether one of n's addresses is in the network: its interfaces' own, and the one
// the managers see it under.
func hasAddressIn(n *warrenv1.Node, network netip.Prefix) bool {
	for _, s := range n.GetFacts().GetAddresses() {
		if contains(network, s) {
			return true
		}
	}
	return contains(network, n.GetStatus().GetAddr())
}

// contains tells whether s, an address perhaps with a port or a prefix length behind it, is in the
// network.
func contains(network netip.Prefix, s string) bool {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if withPort, err := netip.ParseAddrPort(s); err == nil {
			a = withPort.Addr()
		} else if withLength, err := netip.ParsePrefix(s); err == nil {
			a = withLength.Addr()
		} else {
			return false
		}
	}
	return network.Contains(a.Unmap().WithZone(""))
}

// goName turns what uname and other tools call a system or an architecture into Go's name for it.
func goName(s string) string {
	switch s = strings.ToLower(s); s {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i686":
		return "386"
	}
	return s
}
