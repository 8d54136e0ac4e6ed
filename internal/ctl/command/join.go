package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// memberTimeout bounds joining and leaving: a manager catches up with the cluster, an agent stops its
	// tasks.
	memberTimeout = 10 * time.Minute
	// attendTimeout is how long a node that has joined is looked at until its session is open.
	attendTimeout = 10 * time.Second
	attendLook    = 50 * time.Millisecond
	// maxTokenBytes is more than any token has.
	maxTokenBytes = 4 << 10
)

// Daemons are the flags that say where this machine's agent is.
type Daemons struct {
	AgentSocket string `env:"WARREN_AGENT_SOCKET" default:"/run/warren/agent.sock" help:"Unix socket of the agent on this machine." placeholder:"PATH"`
}

// agent is the agent on this machine.
func (d Daemons) agent() warrenv1connect.AgentServiceClient { return client.Agent(d.AgentSocket) }

// explain words what kept a call from the agent.
func (d Daemons) explain(err error) error {
	switch {
	case !client.NotReached(err):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot reach the agent at %s: permission denied: run warrenctl as root (`sudo warrenctl …`), or join the group warren", d.AgentSocket)
	}
	return fmt.Errorf("cannot reach the agent at %s: is warren-agent running on this machine? start it with `systemctl start warren-agent`, or name its socket with --agent-socket", d.AgentSocket)
}

// ClusterJoin is `cluster join`.
type ClusterJoin struct {
	Managers      []string `arg:"" name:"host:port" help:"Managers of the cluster, tried in turn."`
	Token         string   `env:"WARREN_JOIN_TOKEN" help:"The join token; - reads it from standard input. It says whether this machine's agent or its manager is to join." placeholder:"TOKEN"`
	TokenFile     string   `type:"path" help:"A file with the token, in place of --token." placeholder:"FILE"`
	AdvertiseAddr string   `help:"For a manager: under what address the others reach it." placeholder:"HOST:PORT"`
	ListenAddr    string   `help:"For a manager: where it listens, in place of what its configuration says." placeholder:"HOST:PORT"`
	Daemons
}

// Help is the text below the usage line.
func (ClusterJoin) Help() string {
	return "Example, on the machine that is to become a member; `warrenctl cluster join-token` on a manager prints it:\n\n" +
		"    warrenctl cluster join --token WRNTKN-1-… 10.0.0.5:7420"
}

// Validate tells what became of a token that a shell variable was to hold: the address is taken for it.
func (c *ClusterJoin) Validate() error {
	if len(c.Managers) > 0 || c.Token == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Token); err != nil {
		return nil //nolint:nilerr // it may be a token, and the address is missing
	}
	return fmt.Errorf("no join token: --token was given %s, which is a manager's address: is the variable empty that was to hold the token?", c.Token)
}

// Run does it.
func (c *ClusterJoin) Run(ctx context.Context, s *Session) error {
	token, err := c.token(s.In)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	if token.Role == warrenv1.Role_ROLE_MANAGER {
		return c.manager(ctx, s, token)
	}
	if c.AdvertiseAddr != "" || c.ListenAddr != "" {
		return failure.Usagef("--advertise-addr and --listen-addr are for managers, and this is a worker's token: agents listen nowhere")
	}
	return c.worker(ctx, s, token)
}

// token reads the token from where the flags say. No error repeats it.
func (c *ClusterJoin) token(stdin io.Reader) (jointoken.Token, error) {
	var text []byte
	var err error
	switch {
	case c.TokenFile != "":
		var f *os.File
		if f, err = os.Open(c.TokenFile); err == nil {
			defer f.Close()
			text, err = io.ReadAll(io.LimitReader(f, maxTokenBytes))
		}
	case c.Token == "-":
		text, err = io.ReadAll(io.LimitReader(stdin, maxTokenBytes))
	case c.Token == "":
		return jointoken.Token{}, failure.Usagef("no join token: give --token, --token-file or WARREN_JOIN_TOKEN; `warrenctl cluster join-token worker` on a manager prints the whole command")
	default:
		text = []byte(c.Token)
	}
	if err != nil {
		return jointoken.Token{}, failure.Usagef("read the join token: %w", err)
	}
	token, err := jointoken.Parse(string(text))
	return token, failure.AsUsage(err)
}

func (c *ClusterJoin) worker(ctx context.Context, s *Session, token jointoken.Token) error {
	agent := c.agent()
	before, err := agent.GetAgent(ctx, connect.NewRequest(&warrenv1.GetAgentRequest{}))
	if err != nil {
		return c.explain(err)
	}
	s.Err.Printf("The agent of this machine joins at %s …", strings.Join(c.Managers, ", "))
	joined, err := agent.JoinCluster(ctx, connect.NewRequest(&warrenv1.JoinClusterRequest{Token: token.String(), Managers: c.Managers}))
	if err != nil {
		return c.explain(err)
	}
	verb := "is now"
	if before.Msg.GetNodeId() == joined.Msg.GetNodeId() {
		verb = "already is"
	}
	if err := s.print(fmt.Sprintf("This machine %s node %s of cluster %s.", verb, joined.Msg.GetNodeId(), joined.Msg.GetClusterId())); err != nil {
		return err
	}
	return c.attend(ctx, s, agent)
}

// attend looks on until the agent has its session.
func (c *ClusterJoin) attend(ctx context.Context, s *Session, agent warrenv1connect.AgentServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, attendTimeout)
	defer cancel()
	tick := time.NewTicker(attendLook)
	defer tick.Stop()
	problem := "it has not got through to a manager"
	for {
		now, err := agent.GetAgent(ctx, connect.NewRequest(&warrenv1.GetAgentRequest{}))
		if err == nil && now.Msg.GetManager() != "" {
			return s.print("It is connected to the manager at " + now.Msg.GetManager() + ".")
		}
		if err == nil {
			problem = cmp.Or(now.Msg.GetProblem(), problem)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.warn([]string{"it is not connected yet, and goes on trying: " + problem})
			return nil
		}
	}
}

func (c *ClusterJoin) manager(ctx context.Context, s *Session, token jointoken.Token) error {
	s.Err.Printf("The manager of this machine joins at %s, and catches up with the cluster …", strings.Join(c.Managers, ", "))
	joined, err := s.Managers.JoinManager(ctx, connect.NewRequest(&warrenv1.JoinManagerRequest{
		Token: token.String(), Managers: c.Managers, AdvertiseAddr: c.AdvertiseAddr, ListenAddr: c.ListenAddr,
	}))
	if err != nil {
		return err
	}
	return s.print(fmt.Sprintf("This machine is manager %s of cluster %s.", joined.Msg.GetManagerId(), joined.Msg.GetClusterId()))
}

// ClusterLeave is `cluster leave`.
type ClusterLeave struct {
	Agent   bool `xor:"which" help:"The agent leaves. Default: whichever of this machine's daemons is a member."`
	Manager bool `xor:"which" help:"The manager leaves."`
	All     bool `xor:"which" help:"Both leave."`
	Force   bool `short:"f" help:"An agent stops its tasks; a manager leaves although the rest cannot go on without it."`
	Daemons
}

// Help is the text below the usage line.
func (ClusterLeave) Help() string {
	return "A manager hands the lead over first if it has it, and forgets the cluster. An agent's node stays listed as down until `warrenctl node rm` removes it on a manager. A machine that joins anew is a new node.\n\nExample:\n\n    warrenctl cluster leave --agent"
}

// Run does it.
func (c *ClusterLeave) Run(ctx context.Context, s *Session) error {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	agent, manager := c.Agent || c.All, c.Manager || c.All
	if !agent && !manager {
		var err error
		if agent, manager, err = c.which(ctx, s); err != nil {
			return err
		}
	}
	if agent {
		if err := c.agentLeaves(ctx, s); err != nil {
			return err
		}
	}
	if !manager {
		return nil
	}
	if _, err := s.Managers.LeaveManager(ctx, connect.NewRequest(&warrenv1.LeaveManagerRequest{Force: c.Force})); err != nil {
		return err
	}
	return s.print("The manager of this machine has left its cluster.")
}

// which finds out which of the daemons is a member.
func (c *ClusterLeave) which(ctx context.Context, s *Session) (agent, manager bool, err error) {
	a, noAgent := c.agent().GetAgent(ctx, connect.NewRequest(&warrenv1.GetAgentRequest{}))
	m, noManager := s.Managers.GetManager(ctx, connect.NewRequest(&warrenv1.GetManagerRequest{}))
	agent = noAgent == nil && a.Msg.GetClusterId() != ""
	manager = noManager == nil && m.Msg.GetState() != warrenv1.ManagerState_MANAGER_STATE_WAITING
	switch {
	case agent && manager:
		return false, false, failure.Usagef("both the agent and the manager of this machine are members: say which is to leave with --agent, --manager or --all")
	case agent || manager:
		return agent, manager, nil
	case noAgent == nil || noManager == nil:
		return false, false, errors.New("this machine is not a member of a cluster: there is nothing to leave")
	}
	return false, false, c.explain(noAgent)
}

func (c *ClusterLeave) agentLeaves(ctx context.Context, s *Session) error {
	agent := c.agent()
	was, err := agent.GetAgent(ctx, connect.NewRequest(&warrenv1.GetAgentRequest{}))
	if err != nil {
		return c.explain(err)
	}
	if tasks := was.Msg.GetTasks(); tasks > 0 && c.Force {
		s.Err.Printf("The agent of this machine stops its tasks (%d) …", tasks)
	}
	if _, err := agent.LeaveCluster(ctx, connect.NewRequest(&warrenv1.LeaveClusterRequest{Force: c.Force})); err != nil {
		return c.explain(err)
	}
	return s.print(fmt.Sprintf("This machine is not node %s any more. Its agent waits to join a cluster.", was.Msg.GetNodeId()))
}

// ClusterJoinToken is `cluster join-token`.
type ClusterJoinToken struct {
	Role   string         `arg:"" enum:"worker,manager,agent" help:"worker or manager."`
	Rotate bool           `help:"Make a new token; the old one lets nobody in any more. Members stay members."`
	TTL    *time.Duration `name:"ttl" help:"For how long the token is good from now on, such as 2h or 30d. Default: as it is, and 7 days for a new one." placeholder:"DURATION"`
	Quiet  bool           `short:"q" help:"Print the token alone."`
	Output string         `short:"o" enum:"pretty,json,yaml" default:"pretty" help:"How to show it: pretty, json or yaml." placeholder:"FORM"`
}

// Help is the text below the usage line.
func (ClusterJoinToken) Help() string {
	return "Examples:\n\n    warrenctl cluster join-token worker\n    warrenctl cluster join-token manager --rotate --ttl 2h"
}

// Run does it.
func (c *ClusterJoinToken) Run(ctx context.Context, s *Session) error {
	role, err := pki.ParseRole(c.Role)
	if err != nil {
		return failure.AsUsage(err)
	}
	req := &warrenv1.GetJoinTokenRequest{Role: role, Rotate: c.Rotate}
	if c.TTL != nil {
		req.Ttl = durationpb.New(*c.TTL)
	}
	res, err := s.Members.GetJoinToken(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	if c.Quiet {
		return s.print(res.Msg.GetToken())
	}
	return output.Inspect(output.InspectFlags{Output: c.Output}, s.Out, []*warrenv1.GetJoinTokenResponse{res.Msg},
		func(r *warrenv1.GetJoinTokenResponse) any { return r },
		func(r *warrenv1.GetJoinTokenResponse) string { return howToJoin(role, r) })
}

// howToJoin is what to type on a machine that is to join.
func howToJoin(role warrenv1.Role, r *warrenv1.GetJoinTokenResponse) string {
	kind, at := "worker", "MANAGER:7420"
	if role == warrenv1.Role_ROLE_MANAGER {
		kind = "manager"
	}
	if len(r.GetManagers()) > 0 {
		at = r.GetManagers()[0]
	}
	return fmt.Sprintf("To add a %s to this cluster, run this on its machine:\n\n    warrenctl cluster join --token %s %s\n\nThe token is good until %s.\n",
		kind, r.GetToken(), at, r.GetExpiresAt().AsTime().UTC().Format("2006-01-02 15:04 MST"))
}

// sayHowToJoin prints the command that adds a worker. The cluster is made all the same where that fails.
func (s *Session) sayHowToJoin(ctx context.Context) error {
	res, err := s.Members.GetJoinToken(ctx, connect.NewRequest(&warrenv1.GetJoinTokenRequest{Role: warrenv1.Role_ROLE_AGENT}))
	if err != nil {
		s.warn([]string{"the join token cannot be shown: " + err.Error() + ": try `warrenctl cluster join-token worker`"})
		return nil //nolint:nilerr // it has been told, and the cluster is made
	}
	return s.print("\n" + strings.TrimSuffix(howToJoin(warrenv1.Role_ROLE_AGENT, res.Msg), "\n"))
}
