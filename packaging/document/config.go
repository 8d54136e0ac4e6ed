package document

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

const width = 100

// secret are the keys whose value is not for a file that everybody may read.
var secret = map[string]bool{"join-token": true}

// Config returns a daemon's configuration file with every key in it, explained and with its default, and commented out.
func Config(app *kong.Application, path string) string {
	var file strings.Builder
	fmt.Fprintf(&file, "# %s: the configuration of %s.\n#\n", path, app.Name)
	comment(&file, fmt.Sprintf("Each key is a flag of %s(8), without its dashes; what is said on the command line or in the environment wins. "+
		"What stands here commented out are the defaults, or examples where there is none.", app.Name))
	fmt.Fprintf(&file, "#\n# After a change: %s config check && systemctl restart %s\n", app.Name, app.Name)
	for _, flag := range app.Flags {
		if !isKey(flag) {
			continue
		}
		file.WriteString("\n")
		text := strings.ReplaceAll(flag.Help, "Repeat it for each.", several(flag))
		if secret[flag.Name] {
			text += " Not here, where every user of this machine can read it."
		}
		comment(&file, text)
		fmt.Fprintf(&file, "#%s: %s\n", flag.Name, value(flag))
	}
	return file.String()
}

// value is a flag's default, or an example, as YAML has it.
func value(flag *kong.Flag) string {
	switch {
	case flag.IsSlice():
		return "[" + quoted(flag.PlaceHolder) + "]"
	case flag.IsMap():
		return "{" + strings.Replace(flag.PlaceHolder, "=", ": ", 1) + "}"
	case flag.HasDefault && flag.Target.Kind() == reflect.String:
		return quoted(flag.Default)
	case flag.HasDefault:
		return flag.Default
	}
	return quoted(flag.PlaceHolder)
}

// quoted is text as a scalar of YAML, in quotes where it needs some.
func quoted(text string) string {
	if text == "" || strings.ContainsAny(text, ":#[]{}|,&*!%@`'\" ") {
		return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
	}
	return text
}

// comment writes text as comment lines of a width.
func comment(file *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			file.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	file.WriteString(line + "\n")
}

func several(flag *kong.Flag) string {
	if flag.IsMap() {
		return "Several are given as {a: b, c: d}."
	}
	return "Several are given as [a, b]."
}
