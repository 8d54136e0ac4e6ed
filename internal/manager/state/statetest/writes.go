package statetest

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Writes tells what a transaction would change of a state, in the words that control loops declare
// their outputs in: "task create", "task delete", or table and field, "task.desired".
func Writes(s state.Snapshot, t *state.Transaction) []string {
	found := map[string]bool{}
	for _, op := range t.Message().GetOperations() {
		switch a := op.GetAction().(type) {
		case *statev1.Operation_Create:
			table, _ := carried(a.Create)
			found[table+" create"] = true
		case *statev1.Operation_Delete:
			found[tableName(a.Delete.GetTable())+" delete"] = true
		case *statev1.Operation_Update:
			table, after := carried(a.Update)
			for _, field := range changed(Lookup(s, state.KeyOf(after)), after) {
				found[table+"."+field] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// carried returns the object of a message and the name of its table.
func carried(o *statev1.Object) (string, state.Object) {
	m := o.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	return string(field.Name()), m.Get(field).Message().Interface().(state.Object)
}

func tableName(t statev1.Table) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "TABLE_"))
}

// changed lists the fields, other than meta, in which two objects differ.
func changed(before, after proto.Message) []string {
	var names []string
	b, a := before.ProtoReflect(), after.ProtoReflect()
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Name() != "meta" && (b.Has(f) != a.Has(f) || !equal(f, b, a)) {
			names = append(names, string(f.Name()))
		}
	}
	return names
}

func equal(f protoreflect.FieldDescriptor, b, a protoreflect.Message) bool {
	return b.Get(f).Equal(a.Get(f))
}
