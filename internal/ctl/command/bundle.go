package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/bundle"
	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Debug are the commands for those who look for a fault.
type Debug struct {
	Bundle DebugBundle `cmd:"" help:"Put what a bug report needs into a file, without secrets."`
}

// DebugBundle is `debug bundle`.
type DebugBundle struct {
	Daemons
	Since  string `default:"1h" help:"Events and log lines since then: 1h ago (${default}) or 2026-11-23T10:00:00Z." placeholder:"WHEN"`
	NoLogs bool   `help:"Leave out the logs of the daemons on this machine."`
	File   string `arg:"" optional:"" type:"path" help:"File to write, which must not be there. Default: warren-debug-TIME.tar.gz here."`
}

// Help is the text below the usage line.
func (DebugBundle) Help() string {
	return "Holds the cluster on one page, all objects and the events as JSON; and of this machine's daemons, where there are any, how they stand, profiles and the last lines of their logs. " +
		"Values of environment variables, tokens, keys, passwords in addresses and what looks like one, and the output of tasks are taken out. " +
		"Names, images, addresses and the rest of commands stay: look it through before you pass it on. What cannot be had is named in the file errors.txt in it.\n\n" +
		"Examples:\n\n    warrenctl debug bundle\n    warrenctl debug bundle --since 6h --no-logs /tmp/report.tar.gz"
}

const (
	// bundleAsk bounds each question that a bundle asks.
	bundleAsk = 30 * time.Second
	// maxLogLines and maxLogBytes bound the lines of one unit.
	maxLogLines = 20000
	maxLogBytes = 16 << 20
)

// Run does it.
func (c *DebugBundle) Run(ctx context.Context, s *Session) error {
	since, err := moment("--since", c.Since, s.Now())
	if err != nil {
		return err
	}
	folder := "warren-debug-" + s.Now().UTC().Format("20060102-150405")
	if c.File == "" {
		c.File = folder + ".tar.gz"
	}
	file, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return failure.Usagef("%s is there already: name another file, or remove it", c.File)
	}
	if err != nil {
		return err
	}
	g := &gathering{Session: s, archive: bundle.NewArchive(file, folder, s.Now()), redact: bundle.NewRedactor(), since: since.AsTime()}
	err = c.gather(ctx, g)
	err = errors.Join(err, g.archive.Close(), file.Close())
	if err != nil {
		return errors.Join(err, os.Remove(c.File))
	}
	return c.say(s, g)
}

func (c *DebugBundle) say(s *Session, g *gathering) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s holds:\n", c.File)
	for _, e := range g.archive.Entries {
		fmt.Fprintf(&b, "  %-36s %s\n", e.Name, view.Memory(int64(e.Bytes)))
	}
	b.WriteString("Values of variables, tokens, keys and the output of tasks are not in it. Look it through before you pass it on: what else is secret only you can tell.")
	for _, one := range g.failed {
		s.warn([]string{"not in it: " + one})
	}
	return s.print(b.String())
}

// gathering is a bundle that is being made.
type gathering struct {
	*Session
	archive *bundle.Archive
	redact  *bundle.Redactor
	since   time.Time
	failed  []string
}

// miss notes what cannot be had.
func (g *gathering) miss(what string, err error) {
	g.failed = append(g.failed, g.redact.Text(what+": "+output.OneLine(err.Error())))
}

// gather asks for everything before it writes anything: what is secret in one thing is taken out of all.
func (c *DebugBundle) gather(ctx context.Context, g *gathering) error {
	objects := g.objects(ctx)
	for _, o := range objects {
		for _, m := range o.messages {
			g.redact.Learn(m)
		}
	}
	if err := g.versions(ctx); err != nil {
		return err
	}
	if err := g.page(ctx); err != nil {
		return err
	}
	for _, o := range objects {
		if err := g.add(o); err != nil {
			return err
		}
	}
	if err := g.daemons(ctx, c.Daemons); err != nil {
		return err
	}
	if !c.NoLogs {
		if err := g.logs(ctx); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(g.failed) == 0 {
		return nil
	}
	return g.archive.Add("errors.txt", []byte(strings.Join(g.failed, "\n")+"\n"))
}

func (g *gathering) versions(ctx context.Context) error {
	told := map[string]any{"client": map[string]string{"version": version.Version, "commit": version.Commit, "date": version.Date}}
	ctx, cancel := context.WithTimeout(ctx, bundleAsk)
	defer cancel()
	if res, err := g.Cluster.GetVersion(ctx, connect.NewRequest(&warrenv1.GetVersionRequest{})); err != nil {
		g.miss("the manager's version", err)
	} else {
		told["manager"] = map[string]string{"version": res.Msg.GetVersion(), "commit": res.Msg.GetCommit(), "go": res.Msg.GetGoVersion(), "platform": res.Msg.GetPlatform()}
	}
	text, err := json.MarshalIndent(told, "", "  ")
	if err != nil {
		return err
	}
	return g.archive.Add("version.json", append(text, '\n'))
}

// page adds what `system info` shows.
func (g *gathering) page(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bundleAsk)
	defer cancel()
	info, err := g.system(ctx)
	if err != nil {
		g.miss("the page about the cluster", err)
		return nil
	}
	return g.archive.Add("system-info.txt", []byte(g.redact.Text(info.String())))
}

// collection is all objects of a kind.
type collection struct {
	name     string
	messages []proto.Message
}

// objects asks for all there is.
func (g *gathering) objects(ctx context.Context) (all []collection) {
	ask := func(name string, list func(ctx context.Context) ([]proto.Message, error)) {
		ctx, cancel := context.WithTimeout(ctx, bundleAsk)
		defer cancel()
		messages, err := list(ctx)
		if err != nil {
			g.miss(name, err)
		}
		if len(messages) > 0 || err == nil {
			all = append(all, collection{name, messages})
		}
	}
	ask("cluster", func(ctx context.Context) ([]proto.Message, error) {
		res, err := g.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
		if err != nil {
			return nil, err
		}
		return []proto.Message{res.Msg}, nil
	})
	ask("nodes", func(ctx context.Context) ([]proto.Message, error) { return messagesOf(g.ListNodes(ctx)) })
	ask("networks", func(ctx context.Context) ([]proto.Message, error) { return messagesOf(g.ListNetworks(ctx)) })
	var services []*warrenv1.ServiceEntry
	ask("services", func(ctx context.Context) (_ []proto.Message, err error) {
		services, err = g.ListServices(ctx)
		return messagesOf(services, err)
	})
	ask("revisions", func(ctx context.Context) (all []proto.Message, err error) {
		for _, e := range services {
			res, err := g.Services.ListRevisions(ctx, connect.NewRequest(&warrenv1.ListRevisionsRequest{Ref: e.GetService().GetMeta().GetId()}))
			if err != nil {
				return all, err
			}
			all = append(all, res.Msg)
		}
		return all, nil
	})
	ask("tasks", func(ctx context.Context) ([]proto.Message, error) { return messagesOf(g.ListTasks(ctx, "", "", false)) })
	ask("trust", func(ctx context.Context) ([]proto.Message, error) {
		trust, err := g.trust(ctx)
		if err != nil {
			return nil, err
		}
		return []proto.Message{trust}, nil
	})
	ask("events", g.events)
	return all
}

func messagesOf[M proto.Message](list []M, err error) ([]proto.Message, error) {
	all := make([]proto.Message, 0, len(list))
	for _, m := range list {
		all = append(all, m)
	}
	return all, err
}

func (g *gathering) events(ctx context.Context) (all []proto.Message, err error) {
	stream, err := g.Events.WatchEvents(ctx, connect.NewRequest(&warrenv1.WatchEventsRequest{NoFollow: true, Since: timestamppb.New(g.since)}))
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			all = append(all, e)
		}
	}
	return all, stream.Err()
}

// add adds objects as an array of JSON.
func (g *gathering) add(o collection) error {
	var b bytes.Buffer
	b.WriteString("[")
	for i, m := range o.messages {
		if i > 0 {
			b.WriteString(",")
		}
		text, err := g.redact.JSON(m)
		if err != nil {
			return fmt.Errorf("write %s: %w", o.name, err)
		}
		b.WriteString("\n")
		b.Write(text)
	}
	b.WriteString("\n]\n")
	return g.archive.Add(o.name+".json", b.Bytes())
}

// daemons adds how the daemons on this machine stand, where there are any.
func (g *gathering) daemons(ctx context.Context, d Daemons) error {
	socket := g.Connection.Socket
	if socket == "" {
		socket = defaultSocket
	}
	err := g.daemon(ctx, "manager", socket, func(ctx context.Context) (proto.Message, error) {
		c, err := client.New(client.Options{Socket: socket})
		if err != nil {
			return nil, err
		}
		res, err := c.Managers.GetManager(ctx, connect.NewRequest(&warrenv1.GetManagerRequest{}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	})
	return errors.Join(err, g.daemon(ctx, "agent", d.AgentSocket, func(ctx context.Context) (proto.Message, error) {
		res, err := d.agent().GetAgent(ctx, connect.NewRequest(&warrenv1.GetAgentRequest{}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}))
}

func (g *gathering) daemon(ctx context.Context, name, socket string, stand func(context.Context) (proto.Message, error)) error {
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		return nil // it is not on this machine
	}
	ctx, cancel := context.WithTimeout(ctx, bundleAsk)
	defer cancel()
	m, err := stand(ctx)
	if err != nil {
		g.miss("how the "+name+" stands", err)
	} else if err := g.add(collection{"local/" + name, []proto.Message{m}}); err != nil {
		return err
	}
	// Stacks name functions and addresses of memory, heap profiles who holds how much of it: neither has what is in it.
	for _, profile := range []struct{ ask, file string }{{"goroutine?debug=1", "goroutines.txt"}, {"heap", "heap.pb.gz"}} {
		text, err := client.Profile(ctx, socket, profile.ask)
		if err != nil {
			g.miss("the "+name+"'s profile "+profile.ask, err)
			continue
		}
		if err := g.archive.Add("local/"+name+"-"+profile.file, text); err != nil {
			return err
		}
	}
	return nil
}

// logs adds the last lines of the units, where there is a journal.
func (g *gathering) logs(ctx context.Context) error {
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		return nil //nolint:nilerr // no systemd
	}
	for _, unit := range []string{"warren-manager", "warren-agent", "warren-wireguard", "containerd"} {
		text, err := journal(ctx, journalctl, unit, g.since)
		if err != nil {
			g.miss("the log of "+unit, err)
			continue
		}
		if len(text) == 0 {
			continue
		}
		if err := g.archive.Add("local/"+unit+".log", []byte(g.redact.Text(string(text)))); err != nil {
			return err
		}
	}
	return nil
}

// journal returns the last lines of a unit, or none where it has none.
func journal(ctx context.Context, journalctl, unit string, since time.Time) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, bundleAsk)
	defer cancel()
	var said bytes.Buffer
	//nolint:gosec // the unit is one of our own list
	cmd := exec.CommandContext(ctx, journalctl, "--quiet", "--no-pager", "--output=short-iso-precise", "--lines="+strconv.Itoa(maxLogLines),
		"--unit="+unit, "--since=@"+strconv.FormatInt(since.Unix(), 10))
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	text, readErr := io.ReadAll(io.LimitReader(out, maxLogBytes))
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output.OneLine(said.String()))
	}
	return text, readErr
}
