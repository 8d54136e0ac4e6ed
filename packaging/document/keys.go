package document

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/daemonflags"
)

// Keys returns a daemon's part of docs/reference/configuration.md: a table of every key, with its flag, its variable, what it may be, its
// default, whether a reload has it take effect, and what it means. The defaults that depend on the machine are as the caller puts them.
func Keys(app *kong.Application, depends map[string]string) (string, error) {
	reloaded, err := reloaded()
	if err != nil {
		return "", err
	}
	var table strings.Builder
	table.WriteString("| key | flag, variable | value | default | takes effect at a | meaning |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, flag := range app.Flags {
		if !isKey(flag) {
			continue
		}
		usual, takes, help := "", "restart", flag.Help
		for _, told := range []string{" Takes effect at a reload.", " One of " + flag.Enum + "."} { // in columns of their own
			help = strings.TrimSuffix(help, told)
		}
		switch text := depends[flag.Name]; {
		case text != "":
			usual = text
		case flag.HasDefault && flag.Default != "":
			usual = "`" + flag.Default + "`"
		}
		if reloaded[flag.Name] {
			takes = "reload"
		}
		if secret[flag.Name] {
			help += " Not in the configuration file, which every user of the machine can read."
		}
		said := "`--" + flag.Name + "`"
		if len(flag.Envs) > 0 {
			said += ", `" + strings.Join(flag.Envs, "`, `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s | %s |\n", flag.Name, said, cell(form(flag)), cell(usual), takes, cell(help))
	}
	return table.String(), nil
}

// isKey tells whether a flag can be said in the configuration file.
func isKey(flag *kong.Flag) bool {
	return !flag.Hidden && flag.Name != "help" && flag.Name != "version" && flag.Name != "config"
}

// form is what a key may be.
func form(flag *kong.Flag) string {
	switch {
	case flag.IsSlice():
		return "list of " + flag.PlaceHolder
	case flag.IsMap():
		return "map: " + flag.PlaceHolder
	case flag.Enum != "":
		return "`" + strings.Join(strings.Split(flag.Enum, ","), "`, `") + "`"
	case flag.Target.Type() == reflect.TypeFor[int](): // another integer has a form of its own
		return "whole number"
	case flag.Target.Kind() == reflect.Float64:
		return "number"
	case flag.IsBool():
		return "true or false"
	}
	return flag.PlaceHolder
}

// reloaded are the keys that a daemon follows while it runs: those of its log.
func reloaded() (map[string]bool, error) {
	var logging struct{ daemonflags.Logging }
	model, err := Model(daemonflags.Program{Name: "log"}, &logging)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, flag := range model.Flags {
		names[flag.Name] = flag.Name != "help"
	}
	return names, nil
}

// cell is text within a table of Markdown.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}

// Fill puts text into a page, between the comments that begin and end what is generated of a program.
func Fill(page, program, text string) (string, error) {
	begin, end := "<!-- "+program+": written by `make generate` -->\n\n", "\n<!-- "+program+": end -->\n"
	before, rest, begun := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return "", fmt.Errorf("the page has no place for what is generated of %s", program)
	}
	return before + begin + text + end + after, nil
}
