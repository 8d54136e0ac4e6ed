package audit

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// subject is what a request is about.
type subject struct {
	// name is how the request names its object.
	name string
	// with are the switches it has turned on, such as force.
	with string
}

// naming are the fields by which requests name their object, the first that is set counts. A dot leads into
// a message.
var naming = []string{"ref", "name", "spec.name", "role", "addr", "advertise_addr"}

// subjectOf reads what a request is about. It looks at names, roles and switches alone: nothing else
// of a request is known to be fit for a log.
func subjectOf(m proto.Message) subject {
	return subjectIn(m.ProtoReflect())
}

func subjectIn(request protoreflect.Message) subject {
	var s subject
	for _, path := range naming {
		if s.name = read(request, path); s.name != "" {
			break
		}
	}
	var with []string
	fields := request.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.ContainingOneof() != nil && f.Kind() == protoreflect.MessageKind && request.Has(f) {
			return subjectIn(request.Get(f).Message()) // the first message of a stream is one of several kinds
		}
		if f.Kind() == protoreflect.BoolKind && !f.IsList() && !redacted(f) && request.Get(f).Bool() {
			with = append(with, string(f.Name()))
		}
	}
	s.with = strings.Join(with, ",")
	return s
}

// read returns the text at a path, empty where there is none or it is not to be shown.
func read(m protoreflect.Message, path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if f == nil || f.IsList() || f.IsMap() || redacted(f) || !m.Has(f) {
		return ""
	}
	switch {
	case deeper && f.Kind() == protoreflect.MessageKind:
		return read(m.Get(f).Message(), rest)
	case deeper:
		return ""
	case f.Kind() == protoreflect.StringKind:
		return m.Get(f).String()
	case f.Kind() == protoreflect.EnumKind && f.Enum().FullName() == warrenv1.Role(0).Descriptor().FullName():
		return roleName(warrenv1.Role(m.Get(f).Enum()))
	}
	return ""
}

// redacted tells whether a field holds a secret.
func redacted(f protoreflect.FieldDescriptor) bool {
	options, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}

// result is the object that a call has left.
type result struct {
	id      string
	version uint64
}

// identifying are the fields by which responses name an object that they do not hold.
var identifying = []string{"id", "name", "manager_id", "cluster_id"}

// resultOf reads which object a response is about, and its version.
func resultOf(m proto.Message) result {
	response := m.ProtoReflect()
	fields := response.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.IsList() || f.IsMap() || !response.Has(f) {
			continue
		}
		object, ok := response.Get(f).Message().Interface().(interface{ GetMeta() *warrenv1.Meta })
		if ok {
			return result{object.GetMeta().GetId(), object.GetMeta().GetVersion()}
		}
	}
	for _, name := range identifying {
		if id := read(response, name); id != "" {
			return result{id: id}
		}
	}
	return result{}
}
