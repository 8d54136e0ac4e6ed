package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// The wait before another try to become a manager of a cluster: the first, doubling up to the longest.
const (
	firstJoinWait   = 500 * time.Millisecond
	longestJoinWait = 15 * time.Second
	// enlistTimeout bounds one attempt to be sent the log and be given a vote.
	enlistTimeout = time.Minute
)

// A manager joins in two steps. With the token it gets a certificate and the cluster's key, which it
// keeps; from then on it is known as a manager. With the certificate it asks the leader to be sent the
// log, and for a vote once it has caught up. A file says that the second step is due, so that a manager
// that was killed in between goes on where it was.

// joining is what that file holds.
type joining struct {
	Managers []string `json:"managers"`
}

func (m *Manager) joiningPath() string { return m.path("joining.json") }

// isJoining tells whether the second step is due.
func (m *Manager) isJoining() bool {
	_, err := os.Stat(m.joiningPath())
	return err == nil
}

// Join implements api.Local.
func (m *Manager) Join(ctx context.Context, token string, managers []string, given api.Addresses) error {
	parsed, err := jointoken.Parse(token)
	if err != nil {
		return api.Invalid("token", err.Error())
	}
	if parsed.Role != warrenv1.Role_ROLE_MANAGER {
		return api.Invalid("token", "it is a worker's: on this machine `warrenctl cluster join` gives it to warren-agent; "+
			"for a manager use what `warrenctl cluster join-token manager` prints")
	}
	m.founding.Lock()
	defer m.founding.Unlock()
	member, err := m.member(parsed.Digest)
	if err != nil {
		return err
	}
	if !member {
		if err := m.settle(ctx, given); err != nil {
			return err
		}
		if err := m.admitSelf(ctx, parsed, token, managers); err != nil {
			return err
		}
		m.logger.Info("joining a cluster as a manager", "manager", m.self(), "managers", managers)
	}
	return m.enlist(ctx)
}

// member tells whether the manager is one already of the cluster whose CA a token names. It fails with
// consensus.ErrInitialized where it is one of another.
func (m *Manager) member(digest string) (bool, error) {
	mine := m.credentials.Get()
	if mine == nil {
		initialized, err := m.initialized()
		if err == nil && initialized {
			err = fmt.Errorf("%w: let it leave that one first (`warrenctl cluster leave`)", consensus.ErrInitialized)
		}
		return false, err
	}
	for _, root := range mine.Roots() {
		if pki.Digest(root) == digest {
			return true, nil
		}
	}
	return false, fmt.Errorf("%w, %s: let it leave that one first (`warrenctl cluster leave`)", consensus.ErrInitialized, mine.Identity().Cluster)
}

// admitSelf is the first step: a certificate and the cluster's key for a token.
func (m *Manager) admitSelf(ctx context.Context, parsed jointoken.Token, token string, managers []string) error {
	key, err := m.privateKey()
	if err != nil {
		return err
	}
	var answer *warrenv1.JoinResponse
	var refused []error
	for _, addr := range managers {
		request, err := pki.NewRequest(key, time.Now())
		if err != nil {
			return err
		}
		client, end := dialManager(addr, pki.PinnedConfig(parsed.Digest))
		res, err := client.Join(ctx, connect.NewRequest(&warrenv1.JoinRequest{Token: token, Certificate: request}))
		end()
		if err == nil {
			answer = res.Msg
			break
		}
		refused = append(refused, fmt.Errorf("join through %s: %w", addr, err))
	}
	if answer == nil {
		return api.FromElsewhere(errors.Join(refused...))
	}
	mine, err := pki.New(key, answer.GetCertificate(), answer.GetRoots(), answer.GetBridge())
	if err != nil {
		return fmt.Errorf("join: the certificate that came back: %w", err)
	}
	if got := mine.Identity(); got.Role != warrenv1.Role_ROLE_MANAGER || got.Name != m.self() {
		return fmt.Errorf("join: the certificate that came back is for %s %s", pki.RoleName(got.Role), got.Name)
	}
	cluster, err := authority.ParseKey(answer.GetClusterKey())
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := m.ring.SaveClusterKey(cluster); err != nil {
		return err
	}
	text, err := json.Marshal(joining{Managers: append(answer.GetManagers(), managers...)})
	if err == nil {
		err = pki.WriteSecret(m.joiningPath(), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep what is to be joined: %w", err)
	}
	if err := m.ring.SaveCredentials(mine); err != nil {
		return err
	}
	m.authority.SetKey(cluster)
	m.credentials.Set(mine)
	m.report()
	return nil
}

// enlist is the second step: the log, and a vote. Where it is not due it does nothing.
func (m *Manager) enlist(ctx context.Context) error {
	text, err := os.ReadFile(m.joiningPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var j joining
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err != nil {
		return fmt.Errorf("read what is to be joined %s: %w", m.joiningPath(), err)
	}
	var failed []error
	for _, addr := range j.Managers {
		err := m.enlistAt(ctx, addr)
		if err == nil {
			if err := os.Remove(m.joiningPath()); err != nil {
				return fmt.Errorf("note that the manager has joined: %w", err)
			}
			m.setProblem(nil)
			m.logger.Info("joined the cluster as a manager", "manager", m.self())
			m.report()
			return nil
		}
		failed = append(failed, fmt.Errorf("become a manager of the cluster through %s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return api.FromElsewhere(errors.Join(failed...))
}

func (m *Manager) enlistAt(ctx context.Context, addr string) error {
	node, err := m.core.get()
	if err != nil {
		return err
	}
	// Nobody else may found, leave or restore meanwhile, so it must end. What has been learned by then stays
	// learned: the next attempt goes on where this one was.
	ctx, cancel := context.WithTimeout(ctx, enlistTimeout)
	defer cancel()
	client, end := dialManager(addr, m.credentials.ClientConfig())
	defer end()
	res, err := client.EnlistManager(ctx, connect.NewRequest(&warrenv1.EnlistManagerRequest{
		Addr: m.AgentAddr(), Hostname: hostname(), Version: version.Version, Format: dataformat.Manager(),
	}))
	if err != nil {
		return err
	}
	if err := node.AwaitApplied(ctx, res.Msg.GetIndex()); err != nil {
		return fmt.Errorf("catch up with the cluster: %w: can the other managers reach this one at %s?", err, m.AgentAddr())
	}
	if _, err = client.PromoteManager(ctx, connect.NewRequest(&warrenv1.PromoteManagerRequest{})); err != nil {
		return err
	}
	// The certificate that came with the token names no address. Now that the state is known, so is the CA.
	if err := m.renew(time.Now()); err != nil {
		m.logger.Warn("the manager's certificate does not name its address yet, which programs such as curl look for", "error", err)
	}
	return nil
}

// keepJoining goes on with a second step that was interrupted, and joins what the configuration names,
// until it is done or ctx ends.
func (m *Manager) keepJoining(ctx context.Context) {
	for wait := firstJoinWait; ; wait = min(2*wait, longestJoinWait) {
		err := m.joinConfigured(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		m.logger.Warn("the manager has not joined its cluster yet, and tries again", "error", err, "wait", wait)
		m.setProblem(err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (m *Manager) joinConfigured(ctx context.Context) error {
	if m.credentials.Get() != nil || m.options.JoinToken == nil {
		m.founding.Lock()
		defer m.founding.Unlock()
		return m.enlist(ctx)
	}
	if initialized, err := m.initialized(); err != nil || initialized {
		return err
	}
	token, err := m.options.JoinToken()
	if err != nil || token == "" {
		return err
	}
	return m.Join(ctx, token, m.options.Join, api.Addresses{})
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
