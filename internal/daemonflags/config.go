package daemonflags

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// ConfigFile is the flag that names the configuration file: YAML, in which each flag is a key without
// its dashes. The file may be missing where it is the flag's default. A key that is no flag is an error
// that names it.
type ConfigFile string

// InOrder says that a daemon would begin with this file.
func (f ConfigFile) InOrder() string {
	if _, err := os.Stat(string(f)); errors.Is(err, fs.ErrNotExist) {
		return string(f) + " is not there; what the flags and the environment say is in order"
	}
	return string(f) + " is in order"
}

// TakeCheck takes the words "config check" off the front of a daemon's arguments, and tells whether they were there. They ask
// for no more than a check of the file and the flags.
func TakeCheck(args []string) ([]string, bool) {
	if len(args) >= 2 && args[0] == "config" && args[1] == "check" {
		return args[2:], true
	}
	return args, false
}

// config is what a configuration file says.
type config struct {
	path   string
	values map[string]any
}

func (f ConfigFile) read(mayBeMissing bool, options []*option) (config, error) {
	file := config{path: string(f)}
	text, err := ReadFile(file.path)
	if errors.Is(err, fs.ErrNotExist) && mayBeMissing {
		return file, nil
	}
	if err != nil {
		return file, fmt.Errorf("read the configuration: %w", err)
	}
	if err := yaml.Unmarshal(text, &file.values); err != nil {
		return file, fmt.Errorf("read the configuration %s: %w", file.path, err)
	}
	return file, file.check(options)
}

// check refuses keys that are no flags.
func (c config) check(options []*option) error {
	known := map[string]bool{}
	for _, o := range options {
		_, itself := reflect.TypeAssert[ConfigFile](o.target)
		known[o.name] = !itself && o.name != "version"
	}
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if !known[key] {
			return fmt.Errorf("%s: unknown key %q: the keys are the flags that --help lists, without the dashes", c.path, key)
		}
	}
	return nil
}
