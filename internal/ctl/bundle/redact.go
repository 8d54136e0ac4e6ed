package bundle

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Redacted stands where something secret was.
const Redacted = "(redacted)"

const (
	// longEnough is the length from which on the value of a variable is looked for everywhere: shorter ones are words as
	// true or 8080, which mean nothing by themselves.
	longEnough = 6
)

var (
	// tokens are what Warren itself makes: join tokens and unlock keys.
	tokens = regexp.MustCompile(`WRN(TKN|KEY)-1-[A-Za-z0-9-]+`)
	pem    = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)
	// userinfo are the names and passwords in addresses.
	userinfo = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@"']+@`)
	bearer   = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}`)
	// header is what stands behind the name of the header Authorization, to its end: the scheme, and what it takes.
	header = regexp.MustCompile(`(?i)\b((?:proxy-)?authorization["']?\s*[:=]\s*["']?)[^\r\n"']+`)
	// spoken are flags of that kind with their value behind them, within one text, such as a command for a shell.
	spoken = regexp.MustCompile(`(?i)((?:^|[\s"'])--?[A-Za-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|requirepass)\s+)("[^"]*"|'[^']*'|[^\s,;&"'` + "`" + `-][^\s,;&"']*)`)
	// clients are programs that take a password attached to -p.
	clients  = regexp.MustCompile(`(?i)\b(mysql|mariadb|sshpass)`)
	attached = regexp.MustCompile(`(^|[\s"'])-p[^\s"'=]+`)
	// pair are settings with a name that tells of a secret, as in commands and logs: --db-password=…, apiKey: "…".
	pair = regexp.MustCompile(`(?i)([A-Za-z0-9_.-]*(?:passw(?:or)?d|passphrase|requirepass|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?)[A-Za-z0-9_.-]*"?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;&"']+)`)
	// named are the names alone, of flags whose value comes as the next argument.
	named = regexp.MustCompile(`(?i)^-{1,2}[A-Za-z0-9_.-]*(passw(or)?d|passphrase|requirepass|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?|authorization)[A-Za-z0-9_.-]*$`)
	// short are flags that many programs take a password with. -pSECRET cannot be told from other flags, but of clients.
	short = regexp.MustCompile(`^-(p|P|pass|u)$`)
)

// Redactor takes what is secret out of objects and texts.
type Redactor struct {
	values map[string]bool
	sorted []string // the longest first; nil where it is to be made anew
}

// NewRedactor returns a redactor that knows no values yet.
func NewRedactor() *Redactor { return &Redactor{values: map[string]bool{}} }

// Learn takes in the values that are secret in a message: they are taken out wherever they occur from then on. All
// messages are learnt before the first is written.
func (r *Redactor) Learn(m proto.Message) {
	walk(m.ProtoReflect(), func(of protoreflect.Message) {
		c, is := of.Interface().(*warrenv1.ContainerSpec)
		if !is {
			return
		}
		for _, variable := range c.GetEnv() {
			_, value, _ := strings.Cut(variable, "=")
			r.learnValue(value)
		}
		for _, list := range [][]string{c.GetCommand(), c.GetArgs()} {
			for i, arg := range list {
				if i > 0 && (named.MatchString(list[i-1]) || short.MatchString(list[i-1])) {
					r.learnValue(arg)
				}
			}
		}
	})
}

func (r *Redactor) learnValue(value string) {
	if value = strings.TrimSpace(value); len(value) >= longEnough && !strings.Contains(value, "{{") {
		r.values[value] = true
		r.sorted = nil
	}
}

// Text takes out of a text what is known to be secret, and what looks like it.
func (r *Redactor) Text(text string) string {
	text = pem.ReplaceAllString(text, Redacted)
	text = tokens.ReplaceAllString(text, Redacted)
	if r.sorted == nil {
		for value := range r.values {
			r.sorted = append(r.sorted, value)
		}
		slices.SortFunc(r.sorted, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	}
	for _, value := range r.sorted {
		text = strings.ReplaceAll(text, value, Redacted)
	}
	text = userinfo.ReplaceAllString(text, "${1}"+Redacted+"@")
	text = header.ReplaceAllString(text, "${1}"+Redacted)
	text = bearer.ReplaceAllString(text, "${1} "+Redacted)
	text = spoken.ReplaceAllString(text, "${1}"+Redacted)
	return pair.ReplaceAllString(text, "${1}"+Redacted)
}

// JSON writes a message as JSON without what is secret in it.
func (r *Redactor) JSON(m proto.Message) ([]byte, error) {
	clean := proto.Clone(m)
	r.clean(clean.ProtoReflect())
	return protojson.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(clean)
}

// clean takes what is secret out of a message in place.
func (r *Redactor) clean(m protoreflect.Message) {
	walk(m, func(of protoreflect.Message) {
		switch o := of.Interface().(type) {
		case *warrenv1.ContainerSpec:
			for i, variable := range o.GetEnv() {
				name, _, _ := strings.Cut(variable, "=")
				o.Env[i] = name + "=" + Redacted
			}
			o.Command, o.Args = r.args(o.GetCommand()), r.args(o.GetArgs())
		case *warrenv1.ExecProbe:
			o.Command = r.args(o.GetCommand())
		case *warrenv1.TaskExit:
			o.LastOutput = withheld(o.GetLastOutput())
		case *warrenv1.TaskHealth:
			o.Output = withheld(o.GetOutput())
		case *warrenv1.Incident:
			// After its first line come lines of the program's output.
			if first, rest, more := strings.Cut(o.GetMessage(), "\n"); more {
				o.Message = first + "\n" + withheld(rest)
			}
		}
		r.cleanFields(of)
	})
}

// withheld stands for what a program has written, which is its owner's.
func withheld(output string) string {
	if output == "" {
		return ""
	}
	return "(output withheld)"
}

// cleanFields takes out the fields that the API marks as secret, and cleans all other texts.
func (r *Redactor) cleanFields(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		options, _ := f.Options().(*descriptorpb.FieldOptions)
		switch {
		case options.GetDebugRedact() && f.Kind() == protoreflect.StringKind && f.Cardinality() != protoreflect.Repeated:
			m.Set(f, protoreflect.ValueOfString(Redacted))
		case options.GetDebugRedact():
			m.Clear(f)
		case f.IsMap():
			if f.MapValue().Kind() == protoreflect.StringKind {
				v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
					text := r.Text(value.String())
					if named.MatchString("--" + key.String()) {
						text = Redacted
					}
					v.Map().Set(key, protoreflect.ValueOfString(text))
					return true
				})
			}
		case f.Kind() != protoreflect.StringKind:
		case f.IsList():
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(r.Text(v.List().Get(i).String())))
			}
		default:
			m.Set(f, protoreflect.ValueOfString(r.Text(v.String())))
		}
		return true
	})
}

// args cleans arguments: also those that come after the name of a secret.
func (r *Redactor) args(list []string) []string {
	client := slices.ContainsFunc(list, clients.MatchString)
	for i := range list {
		if client {
			list[i] = attached.ReplaceAllString(list[i], "${1}-p"+Redacted)
		}
		if i > 0 && (named.MatchString(list[i-1]) || short.MatchString(list[i-1])) && !strings.HasPrefix(list[i], "-") {
			list[i] = Redacted
		}
	}
	return list
}

// walk visits a message and all below it.
func walk(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
					walk(value.Message(), visit)
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), visit)
			}
		default:
			walk(v.Message(), visit)
		}
		return true
	})
}
