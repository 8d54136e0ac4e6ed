package daemonflags

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// ConfigFile is the flag that names the configuration file: YAML, in which each flag is a key without
// its dashes. The file may be missing where it is the flag's default. A key that is no flag is an error
// that names it.
type ConfigFile string

// BeforeResolve implements kong's hook: the file's values become the flags' where neither the command
// line nor the environment has any.
func (ConfigFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	path := string(ctx.FlagValue(trace.Flag).(ConfigFile))
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && path == trace.Flag.Default {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	file := config{path: path}
	if err := yaml.Unmarshal(text, &file.values); err != nil {
		return fmt.Errorf("read the configuration %s: %w", path, err)
	}
	if err := file.Validate(ctx.Model); err != nil {
		return err
	}
	ctx.AddResolver(file)
	return nil
}

// InOrder says that a daemon would begin with this file.
func (c ConfigFile) InOrder() string {
	if _, err := os.Stat(string(c)); errors.Is(err, fs.ErrNotExist) {
		return string(c) + " is not there; what the flags and the environment say is in order"
	}
	return string(c) + " is in order"
}

// TakeCheck takes the words "config check" off the front of a daemon's arguments, and tells whether they were there. They ask
// for no more than a check of the file and the flags.
func TakeCheck(args []string) ([]string, bool) {
	if len(args) >= 2 && args[0] == "config" && args[1] == "check" {
		return args[2:], true
	}
	return args, false
}

// config is a configuration file; kong asks it for the values of flags.
type config struct {
	path   string
	values map[string]any
}

// Validate implements kong.Resolver: a key that is no flag is an error.
func (c config) Validate(app *kong.Application) error {
	known := map[string]bool{}
	for _, flag := range app.Flags {
		known[flag.Name] = flag.Target.Type() != reflect.TypeFor[ConfigFile]() && flag.Name != "help" && flag.Name != "version"
	}
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if !known[key] {
			return fmt.Errorf("%s: unknown key %q: the keys are the flags that --help lists, without the dashes", c.path, key)
		}
	}
	return nil
}

// Resolve implements kong.Resolver.
func (c config) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	// A number means what it does on the command line, also where the flag is a text such as 512m.
	switch number := c.values[flag.Name].(type) {
	case int, float64:
		return fmt.Sprint(number), nil
	}
	return c.values[flag.Name], nil
}
