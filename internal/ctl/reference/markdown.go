package reference

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// Markdown returns the reference of a program: what all commands have in common, then each group of commands and each
// command with a section of its own. What is hidden is left out.
func Markdown(app *kong.Application) string {
	p := &page{app: app}
	p.paragraph("# %s: every command", app.Name)
	p.paragraph("<!-- Written by `make generate` from the program's own flags; a test of cmd/%s fails where it is stale. -->", app.Name)
	p.paragraph("%s", text(app.Help))
	p.paragraph("Where a flag's text ends in parentheses, that is what is usual without it. A flag that is marked *repeatable* may be given several times. " +
		"Where an environment variable stands beside a flag, the flag wins.")
	p.contents(app.Node)
	p.flags("Flags of all commands", 2, app.Flags)
	p.commands(app.Node, 2)
	return strings.TrimRight(p.String(), "\n") + "\n"
}

// page is what has been written.
type page struct {
	strings.Builder
	app *kong.Application
}

func (p *page) line(format string, args ...any)      { fmt.Fprintf(p, format+"\n", args...) }
func (p *page) paragraph(format string, args ...any) { p.line(format+"\n", args...) }

// contents lists the commands, those of a group in one line.
func (p *page) contents(node *kong.Node) {
	for _, child := range shown(node) {
		links := []string{link(child)}
		for _, leaf := range shown(child) {
			links = append(links, link(leaf))
			for _, deeper := range shown(leaf) {
				links = append(links, link(deeper))
			}
		}
		p.line("- %s", strings.Join(links, ", "))
	}
	p.line("")
}

// commands writes the sections of the commands below node, each group's heading one level above theirs.
func (p *page) commands(node *kong.Node, level int) {
	for _, child := range shown(node) {
		p.command(child, level)
		p.commands(child, min(level+1, 3))
	}
}

func (p *page) command(node *kong.Node, level int) {
	p.paragraph("%s %s", strings.Repeat("#", level), words(node))
	p.paragraph("%s", text(node.Help))
	if len(node.Children) == 0 || node.DefaultCmd != nil {
		p.paragraph("    %s", p.usage(node))
	}
	if node.Detail != "" {
		p.paragraph("%s", text(node.Detail))
	}
	if len(node.Aliases) > 0 {
		p.paragraph("Also: `%s`.", strings.Join(node.Aliases, "`, `"))
	}
	switch called := node.DefaultCmd; {
	case called == nil:
	case called.Hidden:
		p.arguments(called)
		p.flags("", level+1, called.Flags)
	default:
		p.paragraph("Without one of its commands it is %s.", link(called))
	}
	p.arguments(node)
	p.flags("", level+1, node.Flags)
}

// usage is the line that is typed.
func (p *page) usage(node *kong.Node) string {
	line := []string{p.app.Name, words(node)}
	if node.DefaultCmd != nil {
		node = node.DefaultCmd
	}
	for _, flag := range node.Flags {
		if flag.Required && !flag.Hidden {
			line = append(line, flag.Summary())
		}
	}
	line = append(line, "[flags]")
	for _, argument := range node.Positional {
		line = append(line, argument.Summary())
	}
	return strings.Join(line, " ")
}

func (p *page) arguments(node *kong.Node) {
	if len(node.Positional) == 0 {
		return
	}
	p.line("| argument | |")
	p.line("| --- | --- |")
	for _, argument := range node.Positional {
		p.line("| %s | %s |", code(argument.Summary()), cell(argument.Help))
	}
	p.line("")
}

// flags writes tables of flags, one for each group of them, in the order in which groups begin.
func (p *page) flags(heading string, level int, flags []*kong.Flag) {
	var order []string
	rows := map[string][]string{}
	for _, flag := range flags {
		if flag.Hidden || flag.Name == "help" {
			continue
		}
		group := ""
		if flag.Group != nil {
			group = flag.Group.Title
		}
		if rows[group] == nil {
			order = append(order, group)
		}
		rows[group] = append(rows[group], fmt.Sprintf("| %s | %s |", spelling(flag), said(flag)))
	}
	if len(order) > 0 && heading != "" {
		p.paragraph("%s %s", strings.Repeat("#", level), heading)
	}
	for _, group := range order {
		title := "flag"
		if group != "" {
			title = strings.ToLower(group)
		}
		p.line("| %s | |", title)
		p.line("| --- | --- |")
		p.line("%s\n", strings.Join(rows[group], "\n"))
	}
}

// spelling is how a flag is written, with its short form and its other names.
func spelling(flag *kong.Flag) string {
	name := "--" + flag.Name
	if !flag.IsBool() {
		name += " " + flag.FormatPlaceHolder()
	}
	var forms []string
	if flag.Short != 0 {
		forms = append(forms, code("-"+string(flag.Short)))
	}
	forms = append(forms, code(name))
	for _, alias := range flag.Aliases {
		forms = append(forms, code("--"+alias))
	}
	return strings.Join(forms, ", ")
}

// said is all there is to say of a flag.
func said(flag *kong.Flag) string {
	said := cell(flag.Help)
	if usual := flag.Default; flag.HasDefault && usual != "" && usual != "false" &&
		!strings.Contains(flag.Help, "("+usual+")") && !strings.Contains(flag.Help, "Default:") && !strings.Contains(flag.Help, "default:") {
		said += " Default: " + code(usual) + "."
	}
	if repeatable(flag) && !strings.Contains(flag.Help, "epeatable") {
		said += " *Repeatable.*"
	}
	if len(flag.Envs) > 0 {
		said += " Environment: " + code(strings.Join(flag.Envs, ", ")) + "."
	}
	return said
}

// repeatable tells whether a flag gathers what it is given.
func repeatable(flag *kong.Flag) bool {
	kind := flag.Target.Kind()
	return kind == reflect.Slice || kind == reflect.Map
}

// shown are the commands below node that are not hidden.
func shown(node *kong.Node) (children []*kong.Node) {
	for _, child := range node.Children {
		if !child.Hidden {
			children = append(children, child)
		}
	}
	return children
}

// words are what is typed for a command, without the program's name and without the aliases that kong's own paths have.
func words(node *kong.Node) string {
	if node.Parent == nil || node.Parent.Type == kong.ApplicationNode {
		return node.Name
	}
	return words(node.Parent) + " " + node.Name
}

// link leads to a command's section, whose anchor is made of its words.
func link(node *kong.Node) string {
	return fmt.Sprintf("[%s](#%s)", words(node), strings.ReplaceAll(words(node), " ", "-"))
}

// text is what stands outside code: what looks like an element of HTML would vanish.
func text(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "    ") {
			lines[i] = strings.ReplaceAll(line, "<", "&lt;")
		}
	}
	return strings.Join(lines, "\n")
}

// cell is text within a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text(s)), " "), "|", `\|`)
}

// code is a word as it is typed, within a table.
func code(s string) string { return "`" + strings.ReplaceAll(s, "|", `\|`) + "`" }
