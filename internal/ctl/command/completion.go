package command

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/completion"
	"github.com/cuemby/warren/internal/ctl/contexts"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Completion is `completion`.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the text below the usage line.
func (Completion) Help() string {
	return "Example:\n\n    source <(warrenctl completion bash)"
}

// Run does it.
func (c *Completion) Run(s *Session, parsed *kong.Context) error {
	_, err := fmt.Fprint(s.Out, completion.Script(c.Shell, parsed.Model.Name))
	return err
}

// Complete is `__complete`, which the completion scripts call.
type Complete struct {
	Words []string `arg:"" optional:""`
}

// nameTimeout bounds how long a person who presses Tab waits for names.
const nameTimeout = time.Second

// Run does it. A manager that cannot be asked leaves names out; nobody wants its error in a prompt.
func (c *Complete) Run(ctx context.Context, s *Session, parsed *kong.Context) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	for _, candidate := range completion.Candidates(parsed.Model.Node, words, func(kind string) []string { return s.names(ctx, kind) }) {
		if _, err := fmt.Fprintf(s.Out, "%s\t%s\n", candidate.Value, candidate.Help); err != nil {
			return err
		}
	}
	return nil
}

// names returns the names of a kind of object, none if they cannot be had.
func (s *Session) names(ctx context.Context, kind string) []string {
	var names []string
	if kind == "context" { // which no manager knows
		if store, err := contexts.Open(); err == nil {
			names, _ = store.Names()
		}
		return append(names, contexts.Local)
	}
	if s.Client == nil {
		return nil
	}
	switch kind {
	case "any":
		for _, one := range []string{"service", "node", "task"} {
			names = append(names, s.names(ctx, one)...)
		}
	case "user":
		if res, err := s.Users.ListUsers(ctx, connect.NewRequest(&warrenv1.ListUsersRequest{})); err == nil {
			for _, u := range res.Msg.GetUsers() {
				names = append(names, u.GetMeta().GetId())
			}
		}
	case "service":
		entries, _ := s.ListServices(ctx)
		for _, e := range entries {
			names = append(names, e.GetService().GetSpec().GetName())
		}
	case "network":
		entries, _ := s.ListNetworks(ctx)
		for _, e := range entries {
			names = append(names, e.GetNetwork().GetSpec().GetName())
		}
	case "node":
		entries, _ := s.ListNodes(ctx)
		for _, e := range entries {
			names = append(names, e.GetNode().GetFacts().GetHostname())
		}
	case "task":
		entries, _ := s.ListTasks(ctx, "", "", true)
		for _, e := range entries {
			names = append(names, view.TaskName(e.GetTask(), e.GetNodeHostname()))
		}
	}
	return names
}
