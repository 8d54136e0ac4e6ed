package command

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/failure"
)

// Reword says in plain words what the parser of the command line found wrong with it.
func Reword(err error) error {
	var wrong *kong.ParseError
	if !errors.As(err, &wrong) || wrong.Context == nil {
		return err
	}
	said := err.Error()
	if missing := regexp.MustCompile(`^expected "<([a-z=-]+)>`).FindStringSubmatch(said); missing != nil {
		return fmt.Errorf("<%s> is missing", missing[1])
	}
	word, unexpected := strings.CutPrefix(said, "unexpected argument ")
	if at := reached(wrong.Context); unexpected && at != nil && len(at.Children) > 0 {
		if plain, hint, hinted := strings.Cut(word, ", did you mean "); hinted {
			return fmt.Errorf("%s has no command %s, did you mean %s", at.Name, plain, hint)
		}
		return fmt.Errorf("%s has no command %s%s", at.Name, word, elsewhere(wrong.Context, word))
	} else if unexpected && at == nil {
		if hint := elsewhere(wrong.Context, word); hint != "" {
			return fmt.Errorf("there is no command %s%s", word, hint)
		}
	}
	return err
}

// elsewhere names the commands that are called so below others.
func elsewhere(ctx *kong.Context, word string) string {
	var found []string
	for _, leaf := range ctx.Model.Leaves(true) {
		if leaf.Name == word || slices.Contains(leaf.Aliases, word) {
			found = append(found, "`"+spelled(leaf)+"`")
		}
	}
	if len(found) == 0 || len(found) > 4 {
		return ""
	}
	return ": did you mean " + strings.Join(found, " or ") + "?"
}

// spelled is what one types for a command.
func spelled(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return spelled(n.Parent) + " " + n.Name
}

// reached is the command that the command line had come to.
func reached(ctx *kong.Context) *kong.Node {
	for _, p := range slices.Backward(ctx.Path) {
		if p.Command != nil {
			return p.Command
		}
	}
	return nil
}

// checkNames refuses names of objects that are empty: to managers that is often all of them.
func checkNames(parsed *kong.Context) error {
	selected := parsed.Selected()
	if selected == nil {
		return nil
	}
	for _, arg := range selected.Positional {
		if arg.Tag.Get("complete") == "" || !arg.Set {
			continue
		}
		empty := false
		switch given := arg.Target.Interface().(type) {
		case string:
			empty = given == ""
		case []string:
			empty = slices.Contains(given, "")
		}
		if empty {
			return failure.Usagef("<%s> is empty: give a name or an id", arg.Name)
		}
	}
	return nil
}
