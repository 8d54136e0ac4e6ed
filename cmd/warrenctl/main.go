// Command warrenctl is the command line of Warren.
//
// # Which manager
//
// It speaks to the manager on this machine through its unix socket (/run/warren/manager.sock), or to the
// managers of a context, which holds their addresses and the user's certificate (warrenctl context). The first of
// these that says it decides: --socket or --host, --context, WARREN_CONTEXT, WARREN_HOST or WARREN_SOCKET,
// the context chosen with `warrenctl context use`. --host names a manager, or several, in place of the
// context's. Where one of several managers is lost it goes on with another.
//
// # Output
//
// Results go to standard output, everything else (progress, warnings, errors) to standard error.
// Lists take -o table|wide|json|yaml|name, -q for ids, --format for a Go template and --filter.
// Colours appear on terminals only, and not when NO_COLOR is set.
//
// # Exit codes
//
//	0    done
//	1    failed, or not done in time; standard error says why
//	2    the command line, or a value in it, is wrong; nothing was done
//	130  interrupted with Ctrl-C; what had been ordered goes on
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/command"
	"github.com/cuemby/warren/internal/ctl/durations"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/numbers"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/specflags"
)

const description = `Run containers on many machines.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (what was ordered goes on).`

// cli is the whole command line.
type cli struct {
	command.Connection `group:"Connection"`

	Service command.Service `cmd:"" aliases:"services,svc" help:"Services: numbers of equal containers kept running."`
	Task    command.Task    `cmd:"" aliases:"tasks" help:"Tasks: single containers of services."`
	Node    command.Node    `cmd:"" aliases:"nodes" help:"Nodes: the machines that run them."`
	Network command.Network `cmd:"" aliases:"networks,net" help:"Networks: which services reach each other."`
	Cluster command.Cluster `cmd:"" help:"The cluster as a whole."`
	Manager command.Manager `cmd:"" aliases:"managers" help:"Managers: the machines that decide."`
	User    command.User    `cmd:"" aliases:"users" help:"Users: who may use the cluster from elsewhere."`
	Context command.Context `cmd:"" aliases:"contexts,ctx" manager:"none" help:"Contexts: which cluster to speak to, and as whom."`

	Why        command.Why        `cmd:"" aliases:"explain" help:"Explain why a service, task or node is as it is."`
	Events     command.Events     `cmd:"" aliases:"event" help:"Show what happened."`
	Top        command.Top        `cmd:"" aliases:"stats" help:"Show what nodes and tasks use, live."`
	System     command.System     `cmd:"" help:"The machines below: one page about all, disks, images that nobody needs."`
	Debug      command.Debug      `cmd:"" help:"For those who look for a fault."`
	Version    command.Version    `cmd:"" help:"Show the versions of warrenctl, the manager, and all in the cluster."`
	Completion command.Completion `cmd:"" manager:"none" help:"Print the script that completes command lines in a shell."`
	Complete   command.Complete   `cmd:"" name:"__complete" hidden:"" passthrough:"" manager:"optional"`
}

// run does what the arguments say and returns the exit code.
func run() int {
	streams := output.Standard()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks politely, the second one ends the program at once.
	context.AfterFunc(ctx, stop)

	var c cli
	ended := -1
	parser := newParser(ctx, &c, streams, func(code int) { ended = code })
	args := os.Args[1:]
	for _, arg := range args {
		if !utf8.ValidString(arg) { // it would go on its way with its bytes replaced
			report(streams, failure.Usagef("%q is not UTF-8 text", arg))
			return failure.Usage
		}
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if ended >= 0 {
		return ended // the help has been shown
	}
	if err != nil {
		report(streams, failure.AsUsage(command.Reword(err)))
		streams.Err.Printf("See `%s --help`.", askedFor(parser, err))
		return failure.Usage
	}
	session := &command.Session{Streams: streams, Connection: c.Connection}
	if err := session.Connect(parsed); err != nil {
		report(streams, failure.AsUsage(err))
		return failure.Usage
	}
	err = parsed.Run(session)
	report(streams, err)
	session.Close()
	return failure.ExitCode(err)
}

// newParser returns the parser of the command line. exit is called with the code to end with once the help is shown.
func newParser(ctx context.Context, into *cli, streams *output.Streams, exit func(code int)) *kong.Kong {
	return kong.Must(into,
		kong.Name("warrenctl"),
		kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 110}),
		kong.Help(printHelp),
		kong.Writers(streams.Out, streams.Err),
		kong.Exit(exit),
		kong.BindTo(ctx, (*context.Context)(nil)),
		durations.Flags(),
		numbers.Flags(),
	)
}

// printHelp prints kong's help, with a command's aliases in a line of their own: within every path
// they hide the words that matter.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if node := ctx.Selected(); node != nil && len(node.Aliases) > 0 {
		node.Detail = strings.TrimSpace(node.Detail + "\n\nAlso known as " + strings.Join(node.Aliases, ", ") + ".")
	}
	err := kong.Visit(ctx.Model.Node, func(v kong.Visitable, next kong.Next) error {
		if node, ok := v.(*kong.Node); ok {
			node.Aliases = nil // nothing is parsed any more
		}
		return next(nil)
	})
	if err != nil {
		return err
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// askedFor names the command that a wrong command line was for.
func askedFor(parser *kong.Kong, err error) string {
	path := []string{parser.Model.Name}
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		for _, p := range wrong.Context.Path {
			if p.Command != nil && !p.Command.Hidden {
				path = append(path, p.Command.Name)
			}
		}
	}
	return strings.Join(path, " ")
}

// report says what went wrong.
func report(s *output.Streams, err error) {
	for _, said := range failure.Describe(err, specflags.FlagOf) {
		fmt.Fprintf(s.Err, "%s %s\n", s.Err.Paint(output.Bad, "error:"), said)
	}
}
