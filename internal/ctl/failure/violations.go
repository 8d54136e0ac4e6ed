package failure

import (
	"fmt"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
)

// violations words the field rules that a request broke, one after the other; empty if the error
// carries none. Only the message type of the rules is needed here, not the engine that checks them.
func violations(ce *connect.Error, flagOf func(string) string) string {
	var said []string
	for _, detail := range ce.Details() {
		value, err := detail.Value()
		if err != nil {
			continue
		}
		broken, ok := value.(*validate.Violations)
		if !ok {
			continue
		}
		for _, v := range broken.GetViolations() {
			said = append(said, violation(v, flagOf))
		}
	}
	return strings.Join(said, "; ")
}

func violation(v *validate.Violation, flagOf func(string) string) string {
	path := fieldPath(v.GetField())
	what := v.GetMessage()
	if what == "" {
		what = "breaks the rule " + v.GetRuleId()
	}
	if path == "" {
		return what
	}
	if flag := flagOf(path); flag != "" {
		return fmt.Sprintf("%s: %s", flag, what)
	}
	return fmt.Sprintf("%s: %s", path, what)
}

// fieldPath writes a path as people write it: spec.task.container.env[2].
func fieldPath(p *validate.FieldPath) string {
	var b strings.Builder
	for i, e := range p.GetElements() {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(e.GetFieldName())
		switch s := e.GetSubscript().(type) {
		case *validate.FieldPathElement_Index:
			fmt.Fprintf(&b, "[%d]", s.Index)
		case *validate.FieldPathElement_StringKey:
			fmt.Fprintf(&b, "[%s]", strconv.Quote(s.StringKey))
		case *validate.FieldPathElement_IntKey:
			fmt.Fprintf(&b, "[%d]", s.IntKey)
		case *validate.FieldPathElement_UintKey:
			fmt.Fprintf(&b, "[%d]", s.UintKey)
		case *validate.FieldPathElement_BoolKey:
			fmt.Fprintf(&b, "[%t]", s.BoolKey)
		}
	}
	return b.String()
}
