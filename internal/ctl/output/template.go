package output

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/ctl/failure"
)

// functions are what templates may call beside Go's own: those that Docker's have.
var functions = template.FuncMap{
	"json":  toJSON,
	"join":  strings.Join,
	"split": strings.Split,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
}

func parse(format string) (*template.Template, error) {
	t, err := template.New("format").Option("missingkey=error").Funcs(functions).Parse(format)
	if err != nil {
		return nil, failure.Usagef("--format: %w", err)
	}
	return t, nil
}

func toJSON(v any) (string, error) {
	if m, ok := v.(proto.Message); ok {
		out, err := protojson.Marshal(m)
		if err != nil {
			return "", err
		}
		v = json.RawMessage(out)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("json: %w", err)
	}
	return string(out), nil
}
