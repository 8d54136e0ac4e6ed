package document

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Page is a man page: NAME.SECTION.
type Page struct {
	Name    string
	Section int
	Text    string
}

// Also is a section that no kong struct knows of.
type Also struct {
	Heading string
	// Entries are terms with what is said about them.
	Entries [][2]string
}

// Daemon returns the page of a daemon, in section 8.
func Daemon(app *kong.Application, also ...Also) Page {
	p := newPage(app.Name, 8, app.Help)
	p.heading("SYNOPSIS")
	p.line(".B %s", escape(app.Name))
	p.line("[flags]")
	p.heading("DESCRIPTION")
	p.prose(app.Help)
	p.flags("FLAGS", app.Flags)
	for _, section := range also {
		p.heading(section.Heading)
		for _, entry := range section.Entries {
			p.line(".TP\n.B %s", escape(entry[0]))
			p.prose(entry[1])
		}
	}
	return p.page
}

// CommandLine returns the pages of a program of commands, in section 1: one of the program, and one of each command.
func CommandLine(app *kong.Application) []Page {
	general, _, _ := strings.Cut(app.Help, "\n")
	top := newPage(app.Name, 1, general)
	top.heading("SYNOPSIS")
	top.line(".B %s", escape(app.Name))
	top.line("command [arguments] [flags]")
	top.heading("DESCRIPTION")
	top.prose(app.Help)
	top.heading("COMMANDS")
	top.line("Each has a page of its own, such as\n.BR %s (1).", escape(strings.ReplaceAll(pathOf(app.Leaves(true)[0]), " ", "-")))
	var pages []Page
	for _, leaf := range app.Leaves(true) {
		top.line(".TP\n.B %s", escape(pathOf(leaf)))
		top.prose(leaf.Help)
		pages = append(pages, command(app, leaf))
	}
	top.flags("FLAGS OF ALL COMMANDS", app.Flags)
	return append([]Page{top.page}, pages...)
}

func command(app *kong.Application, leaf *kong.Node) Page {
	path := pathOf(leaf)
	p := newPage(strings.ReplaceAll(path, " ", "-"), 1, leaf.Help)
	p.heading("SYNOPSIS")
	p.line(".B %s", escape(path))
	for _, argument := range leaf.Positional {
		p.line("%s", escape(argument.Summary()))
	}
	p.line("[flags]")
	p.heading("DESCRIPTION")
	p.prose(leaf.Help)
	p.prose(leaf.Detail)
	if len(leaf.Aliases) > 0 {
		p.prose("Also known as " + strings.Join(leaf.Aliases, ", ") + ".")
	}
	if len(leaf.Positional) > 0 {
		p.heading("ARGUMENTS")
		for _, argument := range leaf.Positional {
			p.line(".TP\n.I %s", escape(argument.Summary()))
			p.prose(argument.Help)
		}
	}
	for node := leaf; node != nil && node.Type != kong.ApplicationNode; node = node.Parent {
		p.flags("FLAGS", node.Flags)
	}
	p.heading("SEE ALSO")
	p.line(".BR %s (1)", escape(app.Name))
	return p.page
}

// pathOf is how a command is called, without the aliases that kong has in its paths.
func pathOf(node *kong.Node) string {
	if node.Type == kong.ApplicationNode {
		return node.Name
	}
	return pathOf(node.Parent) + " " + node.Name
}

type writer struct{ page Page }

func newPage(name string, section int, summary string) *writer {
	w := &writer{Page{Name: name, Section: section}}
	summary = strings.TrimSuffix(summary, ".")
	w.line(`.\" Written by packaging/document.`)
	w.line(`.TH %s %d "" Warren "Warren's manual"`, strings.ToUpper(escape(name)), section)
	w.heading("NAME")
	w.line(`%s \- %s`, escape(name), escape(summary))
	return w
}

func (w *writer) line(format string, args ...any) {
	w.page.Text += fmt.Sprintf(format, args...) + "\n"
}

func (w *writer) heading(text string) { w.line(".SH %s", text) }

// prose writes paragraphs; what is indented is an example.
func (w *writer) prose(text string) {
	example := false
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		indented := strings.HasPrefix(line, "    ")
		switch {
		case indented && !example:
			w.line(".PP\n.nf\n.RS")
		case !indented && example && strings.TrimSpace(line) != "":
			w.line(".RE\n.fi\n.PP")
			example = false
		case line == "" && i > 0 && !example:
			w.line(".sp")
		}
		example = example || indented
		if line = strings.TrimSpace(line); line != "" {
			w.line("%s", escape(line))
		}
	}
	if example {
		w.line(".RE\n.fi")
	}
}

func (w *writer) flags(heading string, flags []*kong.Flag) {
	headed, group := false, ""
	for _, flag := range flags {
		if flag.Hidden || flag.Name == "help" {
			continue
		}
		if !headed {
			w.heading(heading)
			headed = true
		}
		if flag.Group != nil && flag.Group.Title != group {
			group = flag.Group.Title
			w.line(".SS %s", escape(group))
		}
		w.line(".TP\n.B %s", escape(flag.String()))
		w.prose(said(flag))
	}
}

// said is all there is to say of a flag.
func said(flag *kong.Flag) string {
	text := flag.Help
	if flag.HasDefault && flag.Default != "" && flag.Default != "0" && !flag.IsBool() && !strings.Contains(text, "efault:") {
		text += " Default: " + flag.Default + "."
	}
	if len(flag.Envs) > 0 {
		text += " Environment: " + strings.Join(flag.Envs, ", ") + "."
	}
	return text
}

// escape has roff take text for what it is.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
