package daemonflags

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// option is one flag: a field of the struct, and where its value comes from. It implements pflag.Value.
type option struct {
	name, env, placeholder, fallback string
	enum                             []string
	path, text                       bool
	target                           reflect.Value
	said                             bool // by something other than the default
}

// Type implements pflag.Value: what stands for the value in the help.
func (o *option) Type() string {
	switch {
	case o.target.Kind() == reflect.Bool:
		return "bool"
	case o.placeholder != "":
		return o.placeholder
	default:
		return strings.ToUpper(o.name[strings.LastIndexByte(o.name, '-')+1:])
	}
}

// String implements pflag.Value.
func (o *option) String() string { return o.fallback }

// Set implements pflag.Value. Lists grow with each call; commas separate what one call adds, and semicolons what one adds to a map.
func (o *option) Set(value string) error {
	first := !o.said
	o.said = true
	switch o.target.Kind() {
	case reflect.Slice:
		return o.add(first, split(value, ","))
	case reflect.Map:
		return o.add(first, split(value, ";"))
	default:
		return o.put(value)
	}
}

// split is strings.Split, but nothing has no parts.
func split(value, separator string) []string {
	if value == "" {
		return nil
	}
	return strings.Split(value, separator)
}

// take sets what a configuration file says.
func (o *option) take(value any) error {
	switch value := value.(type) {
	case []any:
		if o.target.Kind() != reflect.Slice {
			return errors.New("it must be one value, not a list")
		}
		items := make([]string, len(value))
		for i, item := range value {
			items[i] = fmt.Sprint(item)
		}
		return o.add(true, items)
	case map[string]any:
		if o.target.Kind() != reflect.Map {
			return errors.New("it must be one value, not a map")
		}
		var items []string
		for _, key := range slices.Sorted(maps.Keys(value)) {
			items = append(items, fmt.Sprintf("%s=%v", key, value[key]))
		}
		return o.add(true, items)
	default:
		return o.Set(fmt.Sprint(value))
	}
}

// add adds to a list or a map, which begins anew with the first of what is said in one place.
func (o *option) add(first bool, items []string) error {
	if first {
		o.target.SetZero()
	}
	for _, item := range items {
		if o.target.Kind() == reflect.Slice {
			o.target.Set(reflect.Append(o.target, reflect.ValueOf(item)))
			continue
		}
		key, value, is := strings.Cut(item, "=")
		if !is {
			return fmt.Errorf("it must be KEY=VALUE, not %q", item)
		}
		if o.target.IsNil() {
			o.target.Set(reflect.MakeMap(o.target.Type()))
		}
		o.target.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(value))
	}
	return nil
}

// put sets what is one value.
func (o *option) put(value string) error {
	if o.enum != nil && !slices.Contains(o.enum, value) {
		return fmt.Errorf("it must be one of %s, not %q", strings.Join(o.enum, ", "), value)
	}
	if o.text {
		return o.target.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(value))
	}
	switch o.target.Kind() {
	case reflect.Bool:
		is, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		o.target.SetBool(is)
	case reflect.Int:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", value)
		}
		o.target.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", value)
		}
		o.target.SetFloat(f)
	case reflect.String:
		if o.path && value != "" {
			var err error
			if value, err = absolute(value); err != nil {
				return err
			}
		}
		o.target.SetString(value)
	default:
		return fmt.Errorf("there are no flags of type %s", o.target.Type())
	}
	return nil
}

// absolute is a path from the root, of one from where the program was started or from the user's home.
func absolute(path string) (string, error) {
	if rest, is := strings.CutPrefix(path, "~/"); is {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the home folder for %s: %w", path, err)
		}
		return filepath.Join(home, rest), nil
	}
	return filepath.Abs(path)
}

// described is the help of the flag with its default and its variable.
func (o *option) described(help string) string {
	help = strings.ReplaceAll(help, "${enum}", strings.Join(o.enum, ", "))
	if o.fallback != "" && o.fallback != "0" {
		help += " Default: " + o.fallback + "."
	}
	if o.env != "" {
		help = strings.TrimSuffix(help, ".") + " ($" + o.env + ")."
	}
	return help
}
