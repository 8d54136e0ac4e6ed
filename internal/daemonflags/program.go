package daemonflags

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
)

// ErrHelp is what Parse returns when help was asked for, and has been printed.
var ErrHelp = errors.New("help was asked for")

// helpWidth is how wide the help is, which is not asked of the terminal.
const helpWidth = 100

// Program is a program that is told things by flags.
type Program struct {
	Name, Description string
	// Env begins the names of the flags' environment variables, as WARREN_AGENT.
	Env string
	// Vars are put in for ${name} in defaults; ${enum} in a help is the flag's own.
	Vars map[string]string
}

// Parse fills the struct that into points at with what args, the environment and the configuration file say,
// and with defaults. Tags of the fields:
//
//	name:"reserve-cpu"    the flag's, where it is not the field's name in lower case and with dashes
//	default:"8"
//	env:"-"               the variable's, - for none, where it is not Env_NAME
//	enum:"text,json"      all it may be
//	placeholder:"FILE"    what stands for the value in the help
//	type:"path"           made absolute, from where the program was started
//	help:"…"
//
// Fields may be strings, integers, floats, bools, lists of strings, maps of strings, and what implements
// encoding.TextUnmarshaler; embedded structs are looked into. If *into has a method Validate, that checks the whole.
func (p Program) Parse(into any, args []string, stdout io.Writer) error {
	set := pflag.NewFlagSet(p.Name, pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	set.BoolP("help", "h", false, "Show this help.")
	options, err := p.declare(set, reflect.ValueOf(into).Elem())
	if err != nil {
		return err
	}
	if err := set.Parse(args); err != nil {
		return err
	}
	if help, _ := set.GetBool("help"); help {
		_, err := fmt.Fprintf(stdout, "Usage: %s [flags]\n\n%s\n\nFlags:\n%s", p.Name, wrapped(p.Description), set.FlagUsagesWrapped(helpWidth))
		return errors.Join(ErrHelp, err)
	}
	if set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %s", set.Arg(0))
	}
	if err := settle(options); err != nil {
		return err
	}
	if whole, checks := into.(interface{ Validate() error }); checks {
		return whole.Validate()
	}
	return nil
}

// declare makes a flag of each field of a struct.
func (p Program) declare(set *pflag.FlagSet, fields reflect.Value) ([]*option, error) {
	var all []*option
	for i := range fields.NumField() {
		field := fields.Type().Field(i)
		if field.Anonymous {
			embedded, err := p.declare(set, fields.Field(i))
			if err != nil {
				return nil, err
			}
			all = append(all, embedded...)
			continue
		}
		o := p.option(field, fields.Field(i))
		if o.fallback != "" {
			if err := o.put(o.fallback); err != nil {
				return nil, fmt.Errorf("the default of --%s: %w", o.name, err)
			}
		}
		o.said = false
		declared := set.VarPF(o, o.name, "", o.described(field.Tag.Get("help")))
		declared.DefValue = "" // it is in the description
		if o.target.Kind() == reflect.Bool {
			declared.NoOptDefVal = "true"
		}
		all = append(all, o)
	}
	return all, nil
}

func (p Program) option(field reflect.StructField, target reflect.Value) *option {
	o := &option{
		name: nameOf(field), placeholder: field.Tag.Get("placeholder"), fallback: field.Tag.Get("default"),
		path: field.Tag.Get("type") == "path", target: target,
	}
	for name, value := range p.Vars {
		o.fallback = strings.ReplaceAll(o.fallback, "${"+name+"}", value)
	}
	switch env := field.Tag.Get("env"); env {
	case "-":
	case "":
		o.env = p.Env + "_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
	default:
		o.env = env
	}
	if enum := field.Tag.Get("enum"); enum != "" {
		o.enum = strings.Split(enum, ",")
	}
	_, o.text = reflect.TypeAssert[encoding.TextUnmarshaler](target.Addr())
	return o
}

// settle takes from the environment and the file what the command line did not say.
func settle(options []*option) error {
	var file config
	for _, o := range options {
		if o.said || o.env == "" {
			continue
		}
		value, set := os.LookupEnv(o.env)
		if !set {
			continue
		}
		if err := o.Set(value); err != nil {
			return fmt.Errorf("%s in the environment: %w", o.env, err)
		}
	}
	for _, o := range options {
		if path, is := reflect.TypeAssert[ConfigFile](o.target); is {
			var err error
			if file, err = path.read(string(path) == o.fallback, options); err != nil {
				return err
			}
		}
	}
	for _, o := range options {
		value := file.values[o.name]
		if o.said || value == nil {
			continue
		}
		if err := o.take(value); err != nil {
			return fmt.Errorf("%s: %s: %w", file.path, o.name, err)
		}
	}
	return nil
}

// nameOf is the name of a field's flag.
func nameOf(field reflect.StructField) string {
	return cmp.Or(field.Tag.Get("name"), dashed(field.Name))
}

// dashed is a field's name as a flag's: DataDir is data-dir.
func dashed(field string) string {
	var b strings.Builder
	for i, r := range field {
		if upper := r >= 'A' && r <= 'Z'; upper {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// wrapped breaks a paragraph into lines.
func wrapped(text string) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
		case column+1+len(word) > helpWidth:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
