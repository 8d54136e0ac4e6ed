package output

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/proto"
)

// Document writes one object as JSON, or as YAML where form says yaml.
func Document(s Stream, form string, o proto.Message) error {
	one, err := document(o)
	if err != nil {
		return err
	}
	return encoded(s, form, one)
}

// Record writes one object of a stream that has no end to wait for: as JSON in a line, as YAML as a document of its own.
func Record(s Stream, form string, o proto.Message) error {
	one, err := document(o)
	if err != nil {
		return err
	}
	return record(s, form, one)
}

// RecordOf does the same with what is no message of the API, by its json tags.
func RecordOf(s Stream, form string, v any) error {
	one, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return record(s, form, one)
}

func record(s Stream, form string, one []byte) error {
	if form == "yaml" {
		if _, err := s.Write([]byte("---\n")); err != nil {
			return err
		}
		return encoded(s, form, one)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, one); err != nil { // protojson's blanks vary from build to build
		return err
	}
	line.WriteByte('\n')
	_, err := s.Write(line.Bytes())
	return err
}

// Value writes what is no message of the API, by its json tags, as JSON, or as YAML where form says yaml.
func Value(s Stream, form string, v any) error {
	one, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return encoded(s, form, one)
}

func encoded(s Stream, form string, one []byte) error {
	encode := asJSON
	if form == "yaml" {
		encode = asYAML
	}
	out, err := encode(one)
	if err != nil {
		return err
	}
	_, err = s.Write(out)
	return err
}

// YAML returns an object as YAML.
func YAML(o proto.Message) (string, error) {
	one, err := document(o)
	if err != nil {
		return "", err
	}
	out, err := asYAML(one)
	return string(out), err
}
