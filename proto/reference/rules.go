package main

import (
	"fmt"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// fieldRules are those of a field; nil where it has none.
func fieldRules(f protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// rulesOf says what a field must hold, in a sentence; nothing where it may hold anything.
func rulesOf(f protoreflect.FieldDescriptor) string {
	all := inWords(fieldRules(f), f.Enum())
	if len(all) == 0 {
		return ""
	}
	return capital(strings.Join(all, "; ")) + "."
}

// inWords says what rules demand, of one of the words of e where they are about one. A rule for which it has no words stands as it is in the proto.
func inWords(rules *validate.FieldRules, e protoreflect.EnumDescriptor) []string {
	if rules == nil {
		return nil
	}
	var all []string
	if rules.GetRequired() {
		all = append(all, "must be set")
	}
	for _, rule := range rules.GetCel() {
		all = append(all, rule.GetMessage())
	}
	typed := rules.ProtoReflect()
	if which := typed.WhichOneof(typed.Descriptor().Oneofs().ByName("type")); which != nil {
		all = append(all, ofType(which.Name(), typed.Get(which).Message(), e)...)
	}
	if rules.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE && len(all) > 0 {
		all[len(all)-1] += ", or empty"
	}
	return all
}

func ofType(kind protoreflect.Name, rules protoreflect.Message, e protoreflect.EnumDescriptor) []string {
	said := map[protoreflect.Name]protoreflect.Value{}
	var order []protoreflect.Name
	fields := rules.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); rules.Has(f) {
			said[f.Name()] = rules.Get(f)
			order = append(order, f.Name())
		}
	}
	unit := map[protoreflect.Name]string{"string": " characters", "bytes": " bytes", "repeated": " elements", "map": " elements"}[kind]
	var all []string
	done := map[protoreflect.Name]bool{}
	for _, rule := range order {
		if done[rule] {
			continue
		}
		value := said[rule]
		switch rule {
		case "gte", "lte":
			done["gte"], done["lte"] = true, true
			all = append(all, within(said["gte"], said["lte"], ""))
		case "min_len", "max_len":
			done["min_len"], done["max_len"] = true, true
			all = append(all, within(said["min_len"], said["max_len"], unit))
		case "min_items", "max_items":
			done["min_items"], done["max_items"] = true, true
			all = append(all, within(said["min_items"], said["max_items"], unit))
		case "max_pairs":
			all = append(all, within(protoreflect.Value{}, value, unit))
		case "max_bytes":
			all = append(all, within(protoreflect.Value{}, value, " bytes"))
		case "unique":
			all = append(all, "no element twice")
		case "pattern":
			all = append(all, "it matches `"+value.String()+"`")
		case "in":
			all = append(all, "one of "+list(value.List(), e))
		case "defined_only": // as with all words
		case "not_in": // of words, the first
			all = append(all, "must be set")
		case "items", "keys", "values":
			nested, _ := value.Message().Interface().(*validate.FieldRules)
			if words := inWords(nested, e); len(words) > 0 {
				all = append(all, "each "+map[protoreflect.Name]string{"items": "element", "keys": "key", "values": "value"}[rule]+": "+strings.Join(words, ", "))
			}
		default:
			all = append(all, fmt.Sprintf("%s: %v", rule, value))
		}
	}
	return all
}

// within is a range, either end of which may be missing.
func within(from, to protoreflect.Value, unit string) string {
	switch {
	case !to.IsValid():
		return "at least " + figure(from) + unit
	case !from.IsValid():
		return "at most " + figure(to) + unit
	}
	return figure(from) + " to " + figure(to) + unit
}

// figure is a number, or a duration as people write it.
func figure(v protoreflect.Value) string {
	m, is := v.Interface().(protoreflect.Message)
	if !is {
		return v.String()
	}
	d, is := m.Interface().(*durationpb.Duration)
	if !is {
		return v.String()
	}
	const day = 24 * time.Hour
	switch length := d.AsDuration(); {
	case length == 0:
		return "0"
	case length == day:
		return "1 day"
	case length%day == 0:
		return fmt.Sprintf("%d days", length/day)
	case length%time.Hour == 0:
		return fmt.Sprintf("%dh", length/time.Hour)
	case length%time.Minute == 0:
		return fmt.Sprintf("%dm", length/time.Minute)
	default:
		return length.String()
	}
}

func list(values protoreflect.List, e protoreflect.EnumDescriptor) string {
	var all []string
	for i := range values.Len() {
		text := values.Get(i).String()
		if e != nil {
			text = string(e.Values().ByNumber(protoreflect.EnumNumber(values.Get(i).Int())).Name())
		}
		all = append(all, "`"+text+"`")
	}
	return strings.Join(all, ", ")
}

// rulesOfMessage are the rules about several fields of a message.
func rulesOfMessage(m protoreflect.MessageDescriptor) []string {
	rules, _ := proto.GetExtension(m.Options(), validate.E_Message).(*validate.MessageRules)
	var all []string
	for _, rule := range rules.GetCel() {
		all = append(all, capital(rule.GetMessage())+".")
	}
	return all
}

// mustChoose tells whether one of the fields must be set.
func mustChoose(o protoreflect.OneofDescriptor) bool {
	rules, _ := proto.GetExtension(o.Options(), validate.E_Oneof).(*validate.OneofRules)
	return rules.GetRequired()
}

// oneOf says which fields shut each other out.
func oneOf(o protoreflect.OneofDescriptor) string {
	var names []string
	for i := range o.Fields().Len() {
		names = append(names, "`"+o.Fields().Get(i).JSONName()+"`")
	}
	if mustChoose(o) {
		return "*One of these must be set, and no more than one: " + strings.Join(names, ", ") + ".*"
	}
	return "*No more than one of these may be set: " + strings.Join(names, ", ") + ".*"
}
