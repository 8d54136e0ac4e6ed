package command

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/contexts"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/traceparent"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// defaultSocket is where a manager on this machine listens.
const defaultSocket = "/run/warren/manager.sock"

// Connection are the flags that say which manager is meant.
type Connection struct {
	Context string `env:"WARREN_CONTEXT" complete:"context" help:"Context to use, in place of the current one; \"local\" for the manager on this machine." placeholder:"NAME"`
	Socket  string `env:"WARREN_SOCKET" default:"/run/warren/manager.sock" help:"Unix socket of the manager on this machine." placeholder:"PATH"`
	Host    string `env:"WARREN_HOST" help:"Address of a manager, or of several with commas between, in place of the context's." placeholder:"HOST:PORT"`
	Trace   bool   `help:"Have the managers trace what this command asks for, whatever share of traces they record, and print the trace's id to standard error. Managers and agents must have --trace-endpoint."`
}

// The tag of commands, and of groups of them, that do without a manager: manager:"none", or manager:"optional"
// where it does not matter that none can be found out.
const managerTag = "manager"

// Connect makes the session's client. It dials nothing.
func (s *Session) Connect(parsed *kong.Context) error {
	need := ""
	for n := parsed.Selected(); n != nil && need == ""; n = n.Parent {
		need = n.Tag.Get(managerTag)
	}
	if err := checkNames(parsed); err != nil || need == "none" {
		return err
	}
	err := s.connect(explicit(parsed))
	if need == "optional" {
		return nil
	}
	return err
}

// explicit returns the flags that stand on the command line.
func explicit(parsed *kong.Context) map[string]bool {
	given := map[string]bool{}
	for _, p := range parsed.Path {
		if p.Flag != nil {
			given[p.Flag.Name] = true
		}
	}
	return given
}

// connect decides which manager is meant. What is nearer counts: flags --socket and --host, --context,
// WARREN_CONTEXT, WARREN_HOST and WARREN_SOCKET, the current context, the manager on this machine.
func (s *Session) connect(given map[string]bool) (err error) {
	c := s.Connection
	socket := client.Options{Socket: cmp.Or(c.Socket, defaultSocket)}
	options, named := socket, client.Options{Addrs: c.hosts()}
	switch {
	case given["socket"] && !given["host"]:
	case given["host"]:
		options, err = s.inContext(named)
	case c.Context != "":
		options, err = s.inContext(socket)
	case c.Host != "":
		options, err = s.inContext(named)
	case os.Getenv("WARREN_SOCKET") != "":
	default:
		options, err = s.inContext(socket)
	}
	if err == nil {
		options.OnStale = func(since time.Time) { s.Err.Printf("%s", stale(s.Streams, since)) }
		options.Trace = s.trace()
		s.Client, err = client.New(options)
	}
	if err == nil && s.keeper != nil {
		s.keeper.Ask(managers{s.Client})
	}
	return err
}

// trace is the traceparent of the trace that the command is part of: a new one with --trace, or else that of who called
// it, which the environment says. It is empty for none.
func (s *Session) trace() string {
	around := os.Getenv(traceparent.Variable)
	if !traceparent.Valid(around) { // who cannot read it does as if it were not there, says the W3C
		around = ""
	}
	if !s.Connection.Trace {
		return around
	}
	if around == "" {
		around = traceparent.New()
	}
	around = traceparent.Recorded(around)
	s.Err.Printf("trace %s", traceparent.ID(around))
	return around
}

// hosts are the managers that --host names.
func (c Connection) hosts() []string {
	if c.Host == "" {
		return nil
	}
	return strings.Split(c.Host, ",")
}

// inContext returns the options of the context that is named or current, whose managers are not asked where
// others are named; without a context what it is given.
func (s *Session) inContext(without client.Options) (client.Options, error) {
	store, name, err := s.Connection.context()
	if err != nil || contexts.IsLocal(name) {
		return without, err
	}
	c, err := store.Load(name)
	if err != nil {
		return without, fmt.Errorf("%w; `warrenctl context use local` goes back to the manager on this machine", err)
	}
	s.keeper = contexts.NewKeeper(store, name, c, s.Now)
	o := client.Options{Addrs: c.Managers, Credentials: c.Credentials, Verified: s.keeper.Saw}
	if len(without.Addrs) > 0 {
		o.Addrs = without.Addrs
	}
	return o, nil
}

// context returns the name of the context that is named or current, and where it is kept. A user without
// a home has no contexts.
func (c Connection) context() (store *contexts.Store, name string, err error) {
	if contexts.IsLocal(c.Context) {
		return nil, contexts.Local, nil
	}
	if store, err = contexts.Open(); err != nil {
		if c.Context == "" {
			return nil, contexts.Local, nil
		}
		return nil, "", err
	}
	if name = c.Context; name == "" {
		name, err = store.Current()
	}
	return store, name, err
}

// Close ends the session: the certificate of its context may be being renewed.
func (s *Session) Close() {
	if s.keeper == nil {
		return
	}
	if warning := s.keeper.Close(); warning != "" {
		s.Err.Printf("%s %s", s.Err.Paint(output.Warning, "warning:"), output.OneLine(warning))
	}
}

// managers are what keeps a context fresh.
type managers struct{ *client.Client }

func (m managers) Renew(ctx context.Context, req *connect.Request[warrenv1.RenewRequest]) (*connect.Response[warrenv1.RenewResponse], error) {
	return m.Members.Renew(ctx, req)
}

func (m managers) GetCluster(ctx context.Context, req *connect.Request[warrenv1.GetClusterRequest]) (*connect.Response[warrenv1.GetClusterResponse], error) {
	return m.Cluster.GetCluster(ctx, req)
}
