package api

import (
	"maps"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestEveryPatternHasWords(t *testing.T) {
	left := maps.Clone(patterns)
	var look func(path string, m protoreflect.MessageDescriptor)
	look = func(path string, m protoreflect.MessageDescriptor) {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			at := path + string(f.Name())
			rules, err := protovalidate.ResolveFieldRules(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []*validate.FieldRules{rules, rules.GetRepeated().GetItems(), rules.GetMap().GetKeys(), rules.GetMap().GetValues()} {
				if r.GetString().GetPattern() == "" {
					continue
				}
				if patterns[at] == "" {
					t.Errorf("%s of %s: what its pattern means is not said", at, m.FullName())
				}
				delete(left, at)
			}
			if f.Message() != nil && !f.IsMap() && strings.HasPrefix(string(f.Message().FullName()), "warren.") {
				look(at+".", f.Message())
			}
		}
	}
	for _, spec := range []proto.Message{&warrenv1.ServiceSpec{}, &warrenv1.NodeSpec{}, &warrenv1.ClusterSpec{}, &warrenv1.NetworkSpec{}} {
		look("spec.", spec.ProtoReflect().Descriptor())
	}
	if len(left) > 0 {
		t.Errorf("words for what has no pattern: %v", left)
	}
}
