package control

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The rules of this service's fields in the proto are lengths, and are checked here: the module that managers
// check all kinds of rules with would make the agent a quarter larger. A test compares the two.

// held refuses requests that break the rules of their fields.
var held = connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if m, ok := req.Any().(proto.Message); ok {
			if err := check(m.ProtoReflect()); err != nil {
				return nil, connect.NewError(connect.CodeInvalidArgument, err)
			}
		}
		return next(ctx, req)
	}
})

func check(m protoreflect.Message) error {
	var broken []error
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
		if rules == nil {
			continue
		}
		if !field.IsList() {
			broken = append(broken, checkString(string(field.Name()), m.Get(field).String(), rules.GetString()))
			continue
		}
		list, name := m.Get(field).List(), string(field.Name())
		broken = append(broken, checkLength(name, "items", uint64(list.Len()), rules.GetRepeated().MinItems, rules.GetRepeated().MaxItems))
		for i := range list.Len() {
			broken = append(broken, checkString(fmt.Sprintf("%s[%d]", name, i), list.Get(i).String(), rules.GetRepeated().GetItems().GetString()))
		}
	}
	return errors.Join(broken...)
}

func checkString(name, value string, rules *validate.StringRules) error {
	if rules == nil {
		return nil
	}
	return checkLength(name, "characters", uint64(utf8.RuneCountInString(value)), rules.MinLen, rules.MaxLen)
}

func checkLength(name, of string, length uint64, least, most *uint64) error {
	switch {
	case least != nil && length < *least:
		return fmt.Errorf("%s: must have at least %d %s", name, *least, of)
	case most != nil && length > *most:
		return fmt.Errorf("%s: must have at most %d %s", name, *most, of)
	}
	return nil
}
