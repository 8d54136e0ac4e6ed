package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/shlex"
)

// handbook returns the pages for people, by path; docs/reference shows how commands are spelled, and not commands.
func handbook(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	read := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[path] = string(text)
	}
	read("../../README.md")
	err := filepath.WalkDir("../../docs", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "reference" || entry.Name() == "decisions"):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			read(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// shown is a command that a page shows: whole where it stands in a block, to be pasted, else perhaps without
// its arguments.
type shown struct {
	where string
	text  string
	whole bool
}

var (
	inline   = regexp.MustCompile("`(warrenctl [^`]+)`")
	prompt   = regexp.MustCompile(`^(\$ |sudo )+`)
	operator = regexp.MustCompile(`^([|>&;]+|\d?>.*|\|\||&&)$`)
)

// commands finds the commands of a page.
func commands(path, page string) (all []shown) {
	fenced, before := false, ""
	for n, line := range strings.Split(page, "\n") {
		where := fmt.Sprintf("%s:%d", path, n+1)
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			for _, found := range inline.FindAllStringSubmatch(line, -1) {
				all = append(all, shown{where: where, text: found[1]})
			}
			continue
		}
		if trimmed = before + trimmed; strings.HasSuffix(trimmed, `\`) {
			before = strings.TrimSuffix(trimmed, `\`)
			continue
		}
		before = ""
		if trimmed = prompt.ReplaceAllString(trimmed, ""); strings.HasPrefix(trimmed, "warrenctl ") {
			all = append(all, shown{where, trimmed, true})
		}
	}
	return all
}

// arguments are a command's words up to what is the shell's: a comment, a pipe, another command.
func arguments(text string) ([]string, error) {
	words, err := shlex.Split(text)
	if err != nil {
		return nil, err
	}
	if end := slices.IndexFunc(words, operator.MatchString); end >= 0 {
		words = words[:end]
	}
	words[len(words)-1] = strings.TrimSuffix(words[len(words)-1], ";")
	return words[1:], nil
}

func TestEveryCommandThatTheHandbookShowsIsUnderstood(t *testing.T) {
	parser, found := commandLine(t), 0
	for path, page := range handbook(t) {
		for _, command := range commands(path, page) {
			args, err := arguments(command.text)
			if err != nil {
				t.Errorf("%s: %s: %v", command.where, command.text, err)
				continue
			}
			found++
			if command.whole {
				forget(parser.Model.Node)
				_, err = parser.Parse(args)
				if err != nil && strings.Contains(err.Error(), "no such file") { // the reader's own
					err = nil
				}
			} else {
				err = spelled(parser.Model.Node, args)
			}
			if err != nil {
				t.Errorf("%s: %s: %v", command.where, command.text, err)
			}
		}
	}
	if found < 200 {
		t.Errorf("only %d commands were found", found)
	}
}

// forget has a parser forget which flags it was given: it remembers them from one command line to the next.
func forget(node *kong.Node) {
	for _, f := range node.Flags {
		f.Set = false
	}
	for _, c := range node.Children {
		forget(c)
	}
}

// spelled tells whether words are those of a command and its flags, whatever is missing.
func spelled(node *kong.Node, words []string) error {
	path := []*kong.Node{node}
	for _, word := range words {
		if name, is := strings.CutPrefix(word, "--"); is {
			name, _, _ = strings.Cut(name, "=")
			if name != "help" && !slices.ContainsFunc(path, func(n *kong.Node) bool { return hasFlag(n, name) || n.DefaultCmd != nil && hasFlag(n.DefaultCmd, name) }) {
				return fmt.Errorf("there is no flag --%s", name)
			}
			continue
		}
		last := path[len(path)-1]
		if next := child(last, word); next != nil {
			path = append(path, next)
		} else if len(last.Children) > 0 && last.DefaultCmd == nil && !strings.ContainsAny(word, "-<…") {
			return fmt.Errorf("%s has no command %q", last.Name, word)
		}
	}
	return nil
}

func hasFlag(node *kong.Node, name string) bool {
	return slices.ContainsFunc(node.Flags, func(f *kong.Flag) bool { return f.Name == name || slices.Contains(f.Aliases, name) })
}

func child(node *kong.Node, word string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == word || slices.Contains(c.Aliases, word) {
			return c
		}
	}
	return nil
}

var (
	pageLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#+ (.+)$`)
	noAnchor   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	headedLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

func TestEveryLinkOfTheHandbookLeadsSomewhere(t *testing.T) {
	anchors := map[string]map[string]bool{}
	for path, page := range handbook(t) {
		for _, found := range pageLink.FindAllStringSubmatch(page, -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(found[1], "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			if anchors[to] == nil {
				anchors[to] = anchorsOf(to)
			}
			switch {
			case anchors[to] == nil:
				t.Errorf("%s: there is no %s", path, found[1])
			case anchor != "" && !anchors[to][anchor]:
				t.Errorf("%s: there is no heading %s", path, found[1])
			}
		}
	}
}

// anchorsOf returns what links into a page may end in, nil where there is no page: its headings, as GitHub spells them.
func anchorsOf(path string) map[string]bool {
	text, err := os.ReadFile(path)
	if err != nil {
		if _, err := os.Stat(path); err != nil {
			return nil
		}
	}
	anchors := map[string]bool{}
	for _, found := range heading.FindAllStringSubmatch(string(text), -1) {
		words := strings.ToLower(headedLink.ReplaceAllString(found[1], "$1"))
		anchors[strings.ReplaceAll(noAnchor.ReplaceAllString(words, ""), " ", "-")] = true
	}
	return anchors
}
