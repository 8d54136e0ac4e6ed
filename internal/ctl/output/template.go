package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
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

// Template is what --format gives, for what comes one after the other.
type Template struct{ parsed *template.Template }

// NewTemplate reads a template; what is wrong with it is wrong usage.
func NewTemplate(format string) (*Template, error) {
	t, err := parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format))
	if err != nil {
		return nil, err
	}
	return &Template{t}, nil
}

// Print writes one line of what the template makes of data.
func (t *Template) Print(s Stream, data any) error {
	var b bytes.Buffer
	if err := execute(t.parsed, &b, data); err != nil {
		return err
	}
	_, err := s.Write(b.Bytes())
	return err
}

func parse(format string) (*template.Template, error) {
	t, err := template.New("format").Option("missingkey=error").Funcs(functions).Parse(format)
	if err != nil {
		return nil, failure.Usagef("--format: %w", err)
	}
	return t, nil
}

// execute writes one line of a template's output to w, which is memory: what cannot be made is the
// template's fault.
func execute(t *template.Template, w io.Writer, data any) error {
	if err := t.Execute(w, data); err != nil {
		// The template's own words are of Go's types.
		unknown := regexp.MustCompile(`can't evaluate field (\w+) in type|map has no entry for key "(\w+)"`).FindStringSubmatch(err.Error())
		if unknown != nil {
			return failure.Usagef("--format: there is no .%s", unknown[1]+unknown[2])
		}
		return failure.Usagef("--format: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
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
