package view

import (
	"fmt"
	"strings"

	"github.com/hexops/gotextdiff"
	"github.com/hexops/gotextdiff/myers"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/ctl/output"
)

// Diff is the unified diff of two objects as YAML, empty where they are equal. s says whether it is coloured.
func Diff(s output.Stream, fromName, toName string, from, to proto.Message) (string, error) {
	before, err := output.YAML(from)
	if err != nil {
		return "", err
	}
	after, err := output.YAML(to)
	if err != nil {
		return "", err
	}
	edits := myers.ComputeEdits("", before, after)
	if len(edits) == 0 {
		return "", nil
	}
	unified := fmt.Sprint(gotextdiff.ToUnified(fromName, toName, before, edits))
	if !s.Colour {
		return unified, nil
	}
	var b strings.Builder
	for line := range strings.Lines(unified) {
		text := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(text, "+++"), strings.HasPrefix(text, "---"):
			text = s.Paint(output.Strong, text)
		case strings.HasPrefix(text, "@@"):
			text = s.Paint(output.Faint, text)
		case strings.HasPrefix(text, "+"):
			text = s.Paint(output.Good, text)
		case strings.HasPrefix(text, "-"):
			text = s.Paint(output.Bad, text)
		}
		b.WriteString(text + "\n")
	}
	return b.String(), nil
}
