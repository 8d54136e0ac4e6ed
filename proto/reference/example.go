package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cuemby/warren/internal/access"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// exampleCall is a line of a shell that makes a call; nothing for the calls that only Warren's own programs make, and for those that curl
// cannot, as they take a stream.
func exampleCall(m *protogen.Method) string {
	people := []warrenv1.Role{warrenv1.Role_ROLE_VIEWER, warrenv1.Role_ROLE_OPERATOR, warrenv1.Role_ROLE_ADMIN}
	forPeople := slices.ContainsFunc(access.Declared(m.Desc).GetRoles(), func(r warrenv1.Role) bool { return slices.Contains(people, r) })
	if !forPeople || m.Desc.IsStreamingClient() {
		return ""
	}
	body := example(m.Input.Desc, cmp.Or(called[m.Parent.GoName], "web"))
	switch {
	case m.Parent.GoName == "AgentService":
		return fmt.Sprintf("curl -sS --unix-socket /run/warren/agent.sock -H 'Content-Type: application/json' http://agent/%s -d '%s'", access.Procedure(m.Desc)[1:], body)
	case body == "{}":
		body = ""
	default:
		body = " '" + body + "'"
	}
	if m.Desc.IsStreamingServer() {
		return "stream " + call(m) + body
	}
	return "warren " + call(m) + body
}

// called is what the examples of a service call what it is about: "web" where it is a service.
var called = map[string]string{
	"ClusterService": "warren", "NetworkService": "shop", "NodeService": "m1", "MembershipService": "m2", "TaskService": "web.1", "UserService": "ann",
}

// example is a message with what it must have, and no more, in JSON, about what is called so.
func example(m protoreflect.MessageDescriptor, called string) string {
	var fields []string
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); needed(f) {
			fields = append(fields, fmt.Sprintf("%q: %s", f.JSONName(), exampleOf(f, called)))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// needed tells whether a message cannot do without a field: its rules say so, or it is what a thing is called or how many there are, where
// nothing is refused later or not what anybody wants.
func needed(f protoreflect.FieldDescriptor) bool {
	rules := fieldRules(f)
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return mustChoose(o) && o.Fields().Get(0) == f
	}
	return rules.GetRequired() || rules.GetString().GetMinLen() > 0 || rules.GetBytes().GetMinLen() > 0 || rules.GetRepeated().GetMinItems() > 0 ||
		rules.GetUint32().GetGte() > 0 || len(rules.GetEnum().GetNotIn()) > 0 || len(rules.GetEnum().GetIn()) > 0 || f.Name() == "name" || f.Name() == "replicas"
}

// samples are values, in JSON, of fields that not any will do for.
var samples = map[protoreflect.Name]string{"image": `"nginx:1.27"`, "replicas": "3", "token": `"WRNTKN-1-…"`, "managers": `"10.0.0.1:7420"`}

func exampleOf(f protoreflect.FieldDescriptor, called string) string {
	one := samples[f.Name()]
	switch {
	case one != "":
	case f.Kind() == protoreflect.EnumKind:
		one = fmt.Sprintf("%q", f.Enum().Values().Get(exampleWord(fieldRules(f), f.Enum())).Name())
	case f.Kind() == protoreflect.MessageKind && typeOf(f) == "time":
		one = `"2026-01-31T12:00:00Z"`
	case f.Kind() == protoreflect.MessageKind:
		one = example(f.Message(), called)
	case f.Kind() == protoreflect.StringKind:
		one = fmt.Sprintf("%q", called)
	case f.Kind() == protoreflect.BytesKind:
		one = `"aGVsbG8="`
	case f.Kind() == protoreflect.BoolKind:
		one = "true"
	default:
		one = "1"
	}
	if f.IsList() {
		return "[" + one + "]"
	}
	return one
}

// exampleWord is the index of the first word that a field may be.
func exampleWord(rules *validate.FieldRules, e protoreflect.EnumDescriptor) int {
	for i := range e.Values().Len() {
		number := int32(e.Values().Get(i).Number())
		allowed := rules.GetEnum().GetIn()
		if number != 0 && !slices.Contains(rules.GetEnum().GetNotIn(), number) && (len(allowed) == 0 || slices.Contains(allowed, number)) {
			return i
		}
	}
	return 0
}
