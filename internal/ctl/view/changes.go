package view

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// RevisionDiff is what changed between two revisions of a service, for programs.
type RevisionDiff struct {
	Service string   `json:"service"`
	From    uint64   `json:"from"`
	To      uint64   `json:"to"`
	Changes []Change `json:"changes"`
}

// Change is one field that differs. A side that has no such field is left out.
type Change struct {
	// Field is the path of keys to it, with dots between, and in brackets and quotes where a key has one itself, as
	// labels do. A list changes as a whole.
	Field  string `json:"field"`
	Before any    `json:"before,omitempty"`
	After  any    `json:"after,omitempty"`
}

// Changes are the fields, as they are called in JSON, by which two objects differ, in the order of their paths.
func Changes(before, after proto.Message) ([]Change, error) {
	was, err := tree(before)
	if err != nil {
		return nil, err
	}
	is, err := tree(after)
	if err != nil {
		return nil, err
	}
	return compare([]Change{}, "", was, is), nil
}

func tree(o proto.Message) (map[string]any, error) {
	text, err := protojson.Marshal(o)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	return fields, json.Unmarshal(text, &fields)
}

func compare(found []Change, path string, before, after map[string]any) []Change {
	keys := map[string]any{}
	maps.Copy(keys, before)
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, is := before[key], after[key]
		field := join(path, key)
		inner, _ := was.(map[string]any)
		other, _ := is.(map[string]any)
		switch {
		case len(inner) > 0 && (other != nil || is == nil), len(other) > 0 && (inner != nil || was == nil):
			found = compare(found, field, inner, other)
		case !reflect.DeepEqual(was, is):
			found = append(found, Change{field, was, is})
		}
	}
	return found
}

func join(path, key string) string {
	switch {
	case key == "" || strings.ContainsAny(key, `.[]" `):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}
