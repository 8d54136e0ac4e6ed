package command

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Why is `why`.
type Why struct {
	Service WhyService `cmd:"" help:"Explain a service."`
	Task    WhyTask    `cmd:"" help:"Explain a task."`
	Node    WhyNode    `cmd:"" help:"Explain a node."`
	Any     WhyAny     `cmd:"" default:"withargs" hidden:"" help:"Explain what has that name, a service before a task before a node."`
}

// Help is the text below the usage line.
func (Why) Help() string {
	return "One page: what is wanted, what is, why the two differ with what to do about it, and what happened, by whom. A name alone is that of a service, a task or a node.\n\n" +
		"Examples:\n\n    warrenctl why web\n    warrenctl why task web.3 -o json\n    warrenctl why node n2"
}

// explain are the flags of all of them.
type explain struct {
	Output string `short:"o" enum:"text,json,yaml" default:"text" help:"text, json or yaml." placeholder:"FORM"`
}

func (f explain) run(ctx context.Context, s *Session, object warrenv1.EventObject, ref string) error {
	res, err := s.Explain.Explain(ctx, connect.NewRequest(&warrenv1.ExplainRequest{Object: object, Ref: ref}))
	if err != nil {
		return err
	}
	if f.Output != "text" {
		return output.Document(s.Out, f.Output, res.Msg)
	}
	_, err = fmt.Fprint(s.Out, view.Explanation(s.Out, res.Msg, s.Now()))
	return err
}

// WhyService is `why service`.
type WhyService struct {
	explain
	Ref string `arg:"" name:"service" complete:"service" help:"Name, id or beginning of an id."`
}

// Run does it.
func (c *WhyService) Run(ctx context.Context, s *Session) error {
	return c.run(ctx, s, warrenv1.EventObject_EVENT_OBJECT_SERVICE, c.Ref)
}

// WhyTask is `why task`.
type WhyTask struct {
	explain
	Ref string `arg:"" name:"task" complete:"task" help:"SERVICE.SLOT, id or beginning of an id."`
}

// Run does it.
func (c *WhyTask) Run(ctx context.Context, s *Session) error {
	return c.run(ctx, s, warrenv1.EventObject_EVENT_OBJECT_TASK, c.Ref)
}

// WhyNode is `why node`.
type WhyNode struct {
	explain
	Ref string `arg:"" name:"node" complete:"node" help:"Hostname, id or beginning of an id."`
}

// Run does it.
func (c *WhyNode) Run(ctx context.Context, s *Session) error {
	return c.run(ctx, s, warrenv1.EventObject_EVENT_OBJECT_NODE, c.Ref)
}

// WhyAny is `why` with a name alone.
type WhyAny struct {
	explain
	Ref string `arg:"" name:"name" complete:"any" help:"Of a service, a task or a node."`
}

// Run does it.
func (c *WhyAny) Run(ctx context.Context, s *Session) error {
	return c.run(ctx, s, warrenv1.EventObject_EVENT_OBJECT_UNSPECIFIED, c.Ref)
}
