package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const preamble = `# The API: every call and message

<!-- Written by ` + "`make generate`" + ` from proto/warren/v1; ` + "`make lint`" + ` fails where it is stale. -->

[The API](../api.md) tells how to call, and of pages, versions and errors; the examples use its functions ` + "`warren` and `stream`" + `. An example has what a call
cannot do without; all that it may have is in the tables. An update replaces the whole spec: send what the object has, changed.

Who calls is a viewer, operator or admin ([users](../security.md)), the agent of a node, another manager, or anybody at all. root and the group ` + "`warren`" + ` are
admins on a manager's machine.

Fields are spelled as in JSON; in proto/warren/v1, and so in generated clients, ` + "`pageToken`" + ` is ` + "`page_token`" + `. What is said of one may hold for those behind it that
have no word. Their types, in JSON:

| type | is | such as |
| --- | --- | --- |
| text, number, boolean | as in JSON | ` + "`\"web\"`, `3`, `true`" + ` |
| big number | a number of 64 bits, in quotes | ` + "`\"9000000000\"`" + ` |
| bytes | base64, in quotes | ` + "`\"aGVsbG8=\"`" + ` |
| time | of RFC 3339, in quotes | ` + "`\"2026-01-31T12:00:00Z\"`" + ` |
| duration | seconds, in quotes | ` + "`\"1.5s\"`" + ` |
| list of …, map to … | an array; an object, whose keys are text | ` + "`[\"a\", \"b\"]`, `{\"a\": \"b\"}`" + ` |
| a name that leads below | an object of that form, or one of the words that are listed | ` + "`{\"replicas\": 3}`, `\"PROTOCOL_UDP\"`" + ` |

A field that is left out is empty: ` + "`\"\"`, `0`, `false`, no elements" + `. What is told of a field in italics is checked before anything is done.
`

// page is what has been written.
type page struct {
	strings.Builder
	services []*protogen.Service
	spelled  map[string]string // fields' names of more than one word, as JSON spells them
	inline   map[protoreflect.FullName]bool
	messages map[string]*protogen.Message
	enums    map[string]*protogen.Enum
}

func newPage(plugin *protogen.Plugin) *page {
	p := &page{spelled: map[string]string{}, inline: map[protoreflect.FullName]bool{}, messages: map[string]*protogen.Message{}, enums: map[string]*protogen.Enum{}}
	uses := map[protoreflect.FullName]int{}
	for _, file := range plugin.Files {
		if file.Generate {
			p.services = append(p.services, file.Services...)
		}
	}
	slices.SortFunc(p.services, func(a, b *protogen.Service) int { return strings.Compare(a.GoName, b.GoName) })
	for _, service := range p.services {
		for _, method := range service.Methods {
			for _, m := range []*protogen.Message{method.Input, method.Output} {
				uses[m.Desc.FullName()]++
				p.gather(m, uses)
			}
		}
	}
	for _, service := range p.services {
		for _, method := range service.Methods {
			for _, m := range []*protogen.Message{method.Input, method.Output} {
				p.inline[m.Desc.FullName()] = uses[m.Desc.FullName()] == 1
			}
		}
	}
	return p
}

// gather takes up a message and all that it is made of, and counts where each is used.
func (p *page) gather(m *protogen.Message, uses map[protoreflect.FullName]int) {
	if p.messages[name(m.Desc)] != nil || m.Desc.ParentFile().Package() != api {
		return
	}
	p.messages[name(m.Desc)] = m
	for _, f := range m.Fields {
		if spelling := f.Desc.JSONName(); spelling != string(f.Desc.Name()) {
			p.spelled[string(f.Desc.Name())] = spelling
		}
		if f.Desc.IsMap() {
			f = f.Message.Fields[1]
		}
		if f.Enum != nil {
			p.enums[name(f.Enum.Desc)] = f.Enum
		}
		if f.Message != nil {
			uses[f.Message.Desc.FullName()]++
			p.gather(f.Message, uses)
		}
	}
}

func (p *page) line(format string, args ...any)      { fmt.Fprintf(p, format+"\n", args...) }
func (p *page) paragraph(format string, args ...any) { p.line(format+"\n", args...) }

func (p *page) write() {
	p.line("%s", preamble)
	for _, service := range p.services {
		var calls []string
		for _, method := range service.Methods {
			calls = append(calls, fmt.Sprintf("[%s](#%s)", method.GoName, anchor(call(method))))
		}
		p.line("- [%s](#%s): %s", service.GoName, anchor(service.GoName), strings.Join(calls, ", "))
	}
	p.paragraph("- [Messages](#messages), [words](#words)")
	for _, service := range p.services {
		p.paragraph("## %s\n\n%s", service.GoName, p.prose(service.Comments))
		for _, method := range service.Methods {
			p.method(method)
		}
	}
	p.paragraph("## Messages\n\nWhat calls have in common.")
	for _, key := range sorted(p.messages) {
		if m := p.messages[key]; !p.inline[m.Desc.FullName()] {
			p.paragraph("### %s", key)
			if told := p.prose(m.Comments); told != "" {
				p.paragraph("%s", told)
			}
			p.fields("field", m)
		}
	}
	p.paragraph("## Words\n\nFields of these are one of the words. One that is left out is the first.")
	for _, key := range sorted(p.enums) {
		p.enum(key, p.enums[key])
	}
}

func (p *page) method(m *protogen.Method) {
	p.paragraph("### %s", call(m))
	p.paragraph("%s", p.prose(m.Comments))
	if line := exampleCall(m); line != "" {
		p.paragraph("    %s", line)
	}
	p.paragraph("%s", who(access.Declared(m.Desc)))
	asked, told := "request", "answer"
	if m.Desc.IsStreamingClient() {
		asked = "request, a stream of"
	}
	if m.Desc.IsStreamingServer() {
		told = "answer, a stream of"
	}
	p.body(asked, m.Input)
	p.body(told, m.Output)
}

// body is what a call takes or gives, or where that is told.
func (p *page) body(title string, m *protogen.Message) {
	switch {
	case !p.inline[m.Desc.FullName()]:
		p.paragraph("%s: %s.", capital(title), link(m.Desc))
	case len(m.Fields) == 0:
		p.paragraph("%s: `{}`.", capital(title))
	default:
		p.fields(title, m)
	}
}

func (p *page) fields(title string, m *protogen.Message) {
	if len(m.Fields) == 0 {
		p.paragraph("It has no fields: `{}`.")
		return
	}
	p.line("| %s | type | |\n| --- | --- | --- |", title)
	for _, f := range m.Fields {
		told := p.words(f.Comments)
		if f.Desc.HasOptionalKeyword() {
			told += " Left out is not the same as 0."
		}
		if options, is := f.Desc.Options().(*descriptorpb.FieldOptions); is && options.GetDebugRedact() {
			told += " A secret."
		}
		if rules := rulesOf(f.Desc); rules != "" {
			told += " *" + cell(rules) + "*"
		}
		p.line("| `%s` | %s | %s |", f.Desc.JSONName(), typeOf(f.Desc), strings.TrimSpace(told))
	}
	p.line("")
	for _, o := range m.Oneofs {
		if !o.Desc.IsSynthetic() {
			p.paragraph("%s", oneOf(o.Desc))
		}
	}
	for _, rule := range rulesOfMessage(m.Desc) {
		p.paragraph("*%s*", rule)
	}
}

func (p *page) enum(title string, e *protogen.Enum) {
	p.paragraph("### %s", title)
	if told := p.prose(e.Comments); told != "" {
		p.paragraph("%s", told)
	}
	p.line("| word | |\n| --- | --- |")
	for _, v := range e.Values {
		p.line("| `%s` | %s |", v.Desc.Name(), p.words(v.Comments))
	}
	p.line("")
}

// who may call, from where, and what comes of it.
func who(declared *warrenv1.Access) string {
	var roles []string
	for _, role := range declared.GetRoles() {
		roles = append(roles, cmp.Or(pki.RoleName(role), "anybody"))
	}
	told := "Callers: " + strings.Join(roles, ", ")
	switch {
	case declared.GetLocal():
		told += ", on the machine itself, through its unix socket."
	case declared.GetHere():
		told += ". The manager that is called answers itself, whoever leads."
	default:
		told += "."
	}
	if declared.GetUninitialized() {
		told += " Before there is a cluster, too."
	}
	if declared.GetWrite() {
		told += " It is noted in the audit log."
	}
	return told
}

// typeOf is a field's type, as JSON has it.
func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map to " + typeOf(f.MapValue())
	case f.IsList():
		return "list of " + single(f)
	}
	return single(f)
}

func single(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind:
		switch f.Message().FullName() {
		case "google.protobuf.Timestamp":
			return "time"
		case "google.protobuf.Duration":
			return "duration"
		}
		return link(f.Message())
	case protoreflect.EnumKind:
		return link(f.Enum())
	case protoreflect.StringKind:
		return "text"
	case protoreflect.BytesKind:
		return "bytes"
	case protoreflect.BoolKind:
		return "boolean"
	case protoreflect.Int64Kind, protoreflect.Uint64Kind:
		return "big number"
	default:
		return "number"
	}
}

// call is how a method is called.
func call(m *protogen.Method) string { return m.Parent.GoName + "/" + m.GoName }

// name is a message's or an enum's within the API.
func name(d protoreflect.Descriptor) string {
	return strings.TrimPrefix(string(d.FullName()), string(api)+".")
}

func link(d protoreflect.Descriptor) string {
	return fmt.Sprintf("[%s](#%s)", name(d), anchor(name(d)))
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.NewReplacer("/", "", ".", "").Replace(strings.ToLower(heading))
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

var severalWords = regexp.MustCompile(`\b[a-z]+(_[a-z0-9]+)+\b`)

// prose is a comment, with fields spelled as the page spells them.
func (p *page) prose(c protogen.CommentSet) string {
	text := strings.ReplaceAll(strings.TrimSpace(string(c.Leading)), "\n ", "\n")
	text = severalWords.ReplaceAllStringFunc(text, func(word string) string {
		if spelling := p.spelled[word]; spelling != "" {
			return spelling
		}
		return word
	})
	return strings.ReplaceAll(text, "<", "&lt;")
}

// words is a comment within a table.
func (p *page) words(c protogen.CommentSet) string {
	text := cell(strings.Join(strings.Fields(p.prose(c)), " "))
	if text != "" && !strings.ContainsAny(text[len(text)-1:], ".!?:") {
		text += "."
	}
	return text
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
