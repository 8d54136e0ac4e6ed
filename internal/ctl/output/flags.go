package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// ListFlags are the flags of commands that list. Who embeds them sets the variable columns to a template over
// the columns there are, as the example.
type ListFlags struct {
	Output  string `short:"o" enum:"table,wide,json,yaml,name" default:"table" help:"How to show them: table, wide, json, yaml or name." placeholder:"FORM"`
	Quiet   bool   `short:"q" help:"Print ids alone."`
	Format  string `help:"Print each through a Go template over the columns, such as '${columns}'; begin with 'table ' for titles." placeholder:"TEMPLATE"`
	NoTrunc bool   `help:"Cut nothing to fit the terminal."`
}

// List shows a table in the form the flags ask for.
func (f ListFlags) List(s Stream, t *Table) error {
	switch {
	case f.Quiet:
		return lines(s, t.Rows, func(r Row) string { return r.ID })
	case f.Format == "json" || f.Format == "" && f.Output == "json":
		return documents(s, t.objects(), asJSON)
	case f.Format != "":
		return t.template(s, f.Format)
	case f.Output == "yaml":
		return documents(s, t.objects(), asYAML)
	case f.Output == "name":
		return lines(s, t.Rows, func(r Row) string { return r.Name })
	default:
		return t.write(s, f.Output == "wide", f.NoTrunc)
	}
}

// InspectFlags are the flags of commands that show all of a few things.
type InspectFlags struct {
	Output string `short:"o" enum:"json,yaml,pretty" default:"json" help:"How to show them: json, yaml or pretty." placeholder:"FORM"`
	Pretty bool   `help:"The same as -o pretty: for people."`
	Format string `short:"f" help:"Print each through a Go template, such as '{{.Spec.Name}}'." placeholder:"TEMPLATE"`
}

// DescribeFlags are the flags of commands that show all of a few things for people, and for programs on request.
type DescribeFlags struct {
	Output string `short:"o" enum:"pretty,json,yaml" default:"pretty" help:"How to show them: pretty, json or yaml." placeholder:"FORM"`
	Format string `short:"f" help:"Print each through a Go template, as inspect does." placeholder:"TEMPLATE"`
}

// Inspect returns the flags of an inspection that shows the same.
func (f DescribeFlags) Inspect() InspectFlags {
	return InspectFlags{Output: f.Output, Format: f.Format}
}

// Inspect shows objects in the form the flags ask for. The template of --format sees what subject
// makes of an object; pretty writes one for people.
func Inspect[T proto.Message](f InspectFlags, s Stream, objects []T, subject func(T) any, pretty func(T) string) error {
	switch {
	case f.Format != "" && f.Format != "json":
		t, err := parse(f.Format)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		for _, o := range objects {
			if err := execute(t, &b, subject(o)); err != nil {
				return err
			}
		}
		_, err = s.Write(b.Bytes())
		return err
	case f.Pretty || f.Output == "pretty":
		for i, o := range objects {
			if i > 0 {
				fmt.Fprintln(s)
			}
			fmt.Fprint(s, pretty(o))
		}
		return nil
	case f.Output == "yaml":
		return documents(s, messages(objects), asYAML)
	default:
		return documents(s, messages(objects), asJSON)
	}
}

func messages[T proto.Message](objects []T) []proto.Message {
	all := make([]proto.Message, len(objects))
	for i, o := range objects {
		all[i] = o
	}
	return all
}

func (t *Table) objects() []proto.Message {
	all := make([]proto.Message, len(t.Rows))
	for i, r := range t.Rows {
		all[i] = r.Object
	}
	return all
}

// documents writes objects as one array.
func documents(s Stream, objects []proto.Message, encode func([]byte) ([]byte, error)) error {
	var array bytes.Buffer
	array.WriteByte('[')
	for i, o := range objects {
		if i > 0 {
			array.WriteByte(',')
		}
		one, err := document(o)
		if err != nil {
			return err
		}
		array.Write(one)
	}
	array.WriteByte(']')
	out, err := encode(array.Bytes())
	if err != nil {
		return err
	}
	_, err = s.Write(out)
	return err
}

// With is an object that is shown with others, which belong to it but come from elsewhere, under a key.
type With struct {
	proto.Message
	Key  string
	More []proto.Message
}

// document writes one object.
func document(o proto.Message) ([]byte, error) {
	with, ok := o.(With)
	if !ok {
		return protojson.Marshal(o)
	}
	own, err := protojson.Marshal(with.Message)
	if err != nil {
		return nil, err
	}
	var more []json.RawMessage
	for _, m := range with.More {
		one, err := protojson.Marshal(m)
		if err != nil {
			return nil, err
		}
		more = append(more, one)
	}
	if len(more) == 0 {
		return own, nil
	}
	rest, err := json.Marshal(map[string]any{with.Key: more})
	if string(own) == "{}" {
		return rest, err
	}
	// Its own fields stay in their order, and the rest comes last.
	return append(append(bytes.TrimSuffix(own, []byte("}")), ','), rest[1:]...), err
}

// asJSON indents. protojson varies its blanks on purpose from build to build; this does not.
func asJSON(compact []byte) ([]byte, error) {
	var dense, out bytes.Buffer
	if err := json.Compact(&dense, compact); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, dense.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func lines(s Stream, rows []Row, of func(Row) string) error {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(of(r))
		b.WriteByte('\n')
	}
	_, err := s.Write([]byte(b.String()))
	return err
}

// template executes a template for each row, over the cells by their columns' keys and the object
// itself as .Object.
func (t *Table) template(s Stream, format string) error {
	body, titled := strings.CutPrefix(format, "table ")
	// A shell's single quotes keep \t as two characters; Docker's users write it that way.
	body = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(body)
	tmpl, err := parse(body)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, len(gap), ' ', 0)
	if titled {
		titles := map[string]any{}
		for _, c := range t.Columns {
			titles[c.Key] = c.Title
		}
		if err := execute(tmpl, w, titles); err != nil {
			return err
		}
	}
	for _, r := range t.Rows {
		row := map[string]any{"Object": r.Object}
		for i, c := range t.Columns {
			row[c.Key] = r.Cells[i].Text
		}
		if err := execute(tmpl, w, row); err != nil {
			return fmt.Errorf("%w; the columns are %s", err, t.keys())
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = s.Write(b.Bytes())
	return err
}

func (t *Table) keys() string {
	keys := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		keys[i] = "." + c.Key
	}
	return strings.Join(keys, " ")
}
