package output

import "google.golang.org/protobuf/proto"

// Document writes one object as JSON, or as YAML where form says yaml.
func Document(s Stream, form string, o proto.Message) error {
	one, err := document(o)
	if err != nil {
		return err
	}
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
