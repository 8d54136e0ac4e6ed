package completion

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Tag is the struct tag of flags and arguments whose values are names of that kind: complete:"service".
const Tag = "complete"

// Candidate is one way to go on.
type Candidate struct{ Value, Help string }

// Candidates returns what the last of words, which may be empty, can become. words are those after the
// program's name; names returns the names of a kind of object.
func Candidates(root *kong.Node, words []string, names func(kind string) []string) []Candidate {
	// bash hands over --flag=value as three words.
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" })
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	p := position{node: root}
	for _, w := range words[:len(words)-1] {
		p.pass(w)
	}
	var all []Candidate
	switch {
	case p.value != nil:
		all = values(p.value, names)
	case !p.literal && strings.HasPrefix(last, "-"):
		all = p.flags(last, names)
	default:
		all = p.words(names)
	}
	return slices.DeleteFunc(all, func(c Candidate) bool { return !strings.HasPrefix(c.Value, last) })
}

// position is how far a command line has been read.
type position struct {
	node       *kong.Node
	value      *kong.Value // the flag whose value comes next
	positional int
	literal    bool // no flags come any more
}

// pass reads one word that is complete.
func (p *position) pass(w string) {
	switch {
	case p.value != nil:
		p.value = nil
	case !p.literal && w == "--":
		p.literal = true
	case !p.literal && strings.HasPrefix(w, "-") && w != "-":
		if f := p.flag(w); f != nil && !f.IsBool() && !strings.Contains(w, "=") {
			p.value = f.Value
		}
	default:
		if child := p.child(w); child != nil && p.positional == 0 {
			p.node = child
			return
		}
		if p.node.DefaultCmd != nil && p.positional == 0 {
			p.node = p.node.DefaultCmd
		}
		if p.positional < len(p.node.Positional) && p.node.Positional[p.positional].Passthrough {
			p.literal = true
		}
		p.positional++
	}
}

// meant is the command that a line would run as it is.
func (p *position) meant() *kong.Node {
	if p.node.DefaultCmd != nil {
		return p.node.DefaultCmd
	}
	return p.node
}

func (p *position) child(w string) *kong.Node {
	for _, c := range p.node.Children {
		if c.Name == w || slices.Contains(c.Aliases, w) {
			return c
		}
	}
	return nil
}

// flag finds the flag that a word sets: the last of several short ones, which alone can take a value
// from the next word.
func (p *position) flag(w string) *kong.Flag {
	name, long := strings.CutPrefix(w, "--")
	name, _, _ = strings.Cut(name, "=")
	for _, group := range p.meant().AllFlags(false) {
		for _, f := range group {
			if long && (f.Name == name || slices.Contains(f.Aliases, name)) || !long && f.Short != 0 && strings.HasSuffix(w, string(f.Short)) {
				return f
			}
		}
	}
	return nil
}

// flags are the flags that may come here, or the values of the one that last gives after a =.
func (p *position) flags(last string, names func(string) []string) []Candidate {
	var all []Candidate
	if name, _, valued := strings.Cut(last, "="); valued {
		if f := p.flag(name); f != nil {
			for _, c := range values(f.Value, names) {
				all = append(all, Candidate{name + "=" + c.Value, c.Help})
			}
		}
		return all
	}
	for _, group := range p.meant().AllFlags(true) {
		for _, f := range group {
			all = append(all, Candidate{"--" + f.Name, f.Help})
		}
	}
	return all
}

// words are the commands and arguments that may come here.
func (p *position) words(names func(string) []string) []Candidate {
	var all []Candidate
	for _, c := range p.node.Children {
		if !c.Hidden && p.positional == 0 {
			all = append(all, Candidate{c.Name, c.Help})
		}
	}
	if n := len(p.meant().Positional); n > 0 {
		// The last argument may be one of many.
		all = append(all, values(p.meant().Positional[min(p.positional, n-1)], names)...)
	}
	return all
}

// values are what a flag or argument can be, as far as that is known.
func values(v *kong.Value, names func(string) []string) []Candidate {
	var all []Candidate
	if v.Enum != "" {
		for _, e := range v.EnumSlice() {
			all = append(all, Candidate{Value: e})
		}
	}
	if kind := v.Tag.Get(Tag); kind != "" {
		for _, n := range names(kind) {
			all = append(all, Candidate{Value: n})
		}
	}
	return all
}
