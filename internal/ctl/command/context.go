package command

import (
	"cmp"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/cuemby/warren/internal/ctl/contexts"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
)

// Context are the commands about which cluster is spoken to, and as whom.
type Context struct {
	Ls      ContextLs      `cmd:"" aliases:"list" help:"List contexts."`
	Use     ContextUse     `cmd:"" aliases:"switch,set" help:"Make a context the one that commands use."`
	Import  ContextImport  `cmd:"" aliases:"add,create" help:"Keep a context file that \"user create\" has made."`
	Export  ContextExport  `cmd:"" help:"Write a context, with its private key, to a file."`
	Rm      ContextRm      `cmd:"" aliases:"remove,delete" help:"Forget contexts."`
	Show    ContextShow    `cmd:"" aliases:"inspect,describe,get" help:"Show what there is to know of contexts, but their keys."`
	Current ContextCurrent `cmd:"" help:"Print the name of the context in use."`
}

// ContextLs is `context ls`.
type ContextLs struct {
	output.ListFlags `set:"columns={{.Name}}: {{.Cluster}}"`
}

// Run does it.
func (c *ContextLs) Run(s *Session) error {
	store, err := contexts.Open()
	if err != nil {
		return err
	}
	_, used, err := s.Connection.context()
	if err != nil {
		return err
	}
	names, err := store.Names()
	if err != nil {
		return err
	}
	all := []view.Context{{Name: contexts.Local, Used: used == contexts.Local, Socket: cmp.Or(s.Connection.Socket, defaultSocket)}}
	for _, name := range names {
		one, err := store.Load(name)
		all = append(all, describeContext(name, one, name == used, err))
	}
	table, err := view.Contexts(all, s.Now())
	if err != nil {
		return err
	}
	return c.List(s.Out, table)
}

// describeContext returns what people may see of a context, or why it cannot be used.
func describeContext(name string, c *contexts.Context, used bool, err error) view.Context {
	if err != nil {
		return view.Context{Name: name, Used: used, Problem: err.Error()}
	}
	return view.Context{
		Name: name, Used: used, ClusterName: c.ClusterName, Managers: c.Managers,
		Identity: c.Identity(), ExpiresAt: c.Credentials.NotAfter(), Roots: c.Credentials.Roots(),
	}
}

// ContextUse is `context use`.
type ContextUse struct {
	Name string `arg:"" complete:"context" help:"Name of a context; \"local\" or - for the manager on this machine."`
}

// Run does it.
func (c *ContextUse) Run(s *Session) error {
	store, err := contexts.Open()
	if err != nil {
		return err
	}
	if err := store.Use(c.Name); err != nil {
		return err
	}
	name, err := store.Current()
	if err != nil {
		return err
	}
	if other := s.Connection.Context; other != "" && other != name {
		s.warn([]string{fmt.Sprintf("WARREN_CONTEXT or --context names %s, which counts before it", other)})
	}
	return s.print(name)
}

// ContextImport is `context import`.
type ContextImport struct {
	Name  string `help:"Name to keep it under (the cluster's)." placeholder:"NAME"`
	Use   bool   `short:"u" help:"Also make it the context that commands use."`
	Force bool   `short:"f" help:"Replace a context of this name."`
	File  string `arg:"" help:"The file; - for standard input."`
}

// Help is the text below the usage line.
func (ContextImport) Help() string {
	return "The file is no longer needed then; remove it, as it holds a private key.\n\nExample:\n\n    warrenctl context import --use ci.yaml"
}

// Run does it.
func (c *ContextImport) Run(s *Session) error {
	store, err := contexts.Open()
	if err != nil {
		return err
	}
	var one *contexts.Context
	if c.File == "-" {
		if one, err = contexts.Read(s.In); err != nil {
			return fmt.Errorf("read a context from standard input: %w", err)
		}
	} else if one, err = contexts.ReadFile(c.File); err != nil {
		return err
	}
	name := cmp.Or(c.Name, one.ClusterName, one.Identity().Cluster)
	if err := store.Add(name, one, c.Force); err != nil {
		return err
	}
	if c.Use {
		if err := store.Use(name); err != nil {
			return err
		}
	} else {
		s.Err.Printf("Use it with --context %s, or for all commands with: warrenctl context use %s", name, name)
	}
	return s.print(name)
}

// ContextExport is `context export`.
type ContextExport struct {
	Force bool   `short:"f" help:"Replace the file if it is there."`
	Name  string `arg:"" complete:"context" help:"Name of a context."`
	File  string `arg:"" optional:"" help:"File to write, which only you may read; - for standard output, the default."`
}

// Run does it.
func (c *ContextExport) Run(s *Session) error {
	store, err := contexts.Open()
	if err != nil {
		return err
	}
	one, err := store.Load(c.Name)
	if err != nil {
		return err
	}
	if c.File != "" && c.File != "-" {
		return contexts.WriteFile(c.File, one, c.Force)
	}
	text, err := one.Encode()
	if err != nil {
		return err
	}
	_, err = s.Out.Write(text)
	return err
}

// ContextRm is `context rm`.
type ContextRm struct {
	Force bool     `short:"f" help:"Also the one in use."`
	Names []string `arg:"" name:"name" complete:"context" help:"Names of contexts."`
}

// Help is the text below the usage line.
func (ContextRm) Help() string {
	return "The user stays one of the cluster: `warrenctl user rm` ends its access."
}

// Run does it.
func (c *ContextRm) Run(s *Session) error {
	store, err := contexts.Open()
	if err != nil {
		return err
	}
	used, err := store.Current()
	if err != nil {
		return err
	}
	return forEach(c.Names, func(name string) error {
		if name == used && !c.Force {
			return fmt.Errorf("context %s is in use: run `warrenctl context use local` or another first, or give --force", name)
		}
		if err := store.Remove(name); err != nil {
			return err
		}
		if name == used {
			if err := store.Use(contexts.Local); err != nil {
				return err
			}
		}
		return s.print(name)
	})
}

// ContextShow is `context show`.
type ContextShow struct {
	Output string   `short:"o" enum:"json,yaml,pretty" default:"pretty" help:"How to show them: pretty, json or yaml." placeholder:"FORM"`
	Format string   `short:"f" help:"Print each through a Go template, such as '{{.User}}'." placeholder:"TEMPLATE"`
	Names  []string `arg:"" optional:"" name:"name" complete:"context" help:"Names of contexts; the one in use if none is given."`
}

// Run does it.
func (c *ContextShow) Run(s *Session) error {
	store, used, err := s.Connection.context()
	if err != nil {
		return err
	}
	names := c.Names
	if len(names) == 0 {
		names = []string{used}
	}
	if store == nil {
		if store, err = contexts.Open(); err != nil {
			return err
		}
	}
	all, failed := collect(names, func(name string) (view.Context, error) {
		if contexts.IsLocal(name) {
			return view.Context{Name: contexts.Local, Used: used == contexts.Local, Socket: cmp.Or(s.Connection.Socket, defaultSocket)}, nil
		}
		one, err := store.Load(name)
		return describeContext(name, one, name == used, err), err
	})
	if len(all) == 0 {
		return failed
	}
	var objects []*structpb.Struct
	for _, one := range all {
		object, err := one.Object()
		if err != nil {
			return err
		}
		objects = append(objects, object)
	}
	next := 0 // each is asked for once, in order
	one := func() view.Context { next++; return all[next-1] }
	return errors.Join(failed, output.Inspect(output.InspectFlags{Output: c.Output, Format: c.Format}, s.Out, objects,
		func(*structpb.Struct) any { return one() },
		func(*structpb.Struct) string { return view.DescribeContext(one(), s.Now()) }))
}

// ContextCurrent is `context current`.
type ContextCurrent struct{}

// Run does it.
func (c *ContextCurrent) Run(s *Session) error {
	_, name, err := s.Connection.context()
	if err != nil {
		return err
	}
	return s.print(name)
}
