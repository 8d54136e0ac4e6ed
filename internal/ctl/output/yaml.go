package output

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// asYAML turns JSON, which YAML can read, into YAML as people write it, with the fields in the same
// order.
func asYAML(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	relax(&root)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&root); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// ancientBools read as true and false to parsers of YAML 1.1, but not to this encoder.
var ancientBools = []string{"y", "yes", "on", "n", "no", "off"}

// relax drops JSON's braces and quotes; the encoder puts quotes back where a string would read as
// something else.
func relax(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && slices.Contains(ancientBools, strings.ToLower(n.Value)) {
		return
	}
	n.Style = 0
	for _, child := range n.Content {
		relax(child)
	}
}
