package manager

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/version"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// announceAgain is the wait after an announcement failed.
const announceAgain = 2 * time.Second

// announcement is what this manager has to tell of itself with those credentials, nil before it has any.
func (m *Manager) announcement(mine *pki.Credentials) *statev1.Member {
	told := &statev1.Member{
		Meta: &warrenv1.Meta{Id: m.self()}, Hostname: hostname(), Addr: m.AgentAddr(), Version: version.Version, Format: dataformat.Manager(),
	}
	if mine != nil {
		told.Issuer = mine.Issuer(mine.Certificate())
		told.CertificateExpiresAt = timestamppb.New(mine.NotAfter())
	}
	return told
}

// keepAnnounced tells the cluster how this manager is reached and what it is, whenever the state says
// otherwise and there is somebody to tell, until ctx ends.
func (m *Manager) keepAnnounced(ctx context.Context) {
	for {
		_, changed := m.standing.get()
		feed := m.store.Changed()
		renewed := m.credentials.Changed()
		var again <-chan time.Time
		if err := m.announce(ctx); err != nil {
			m.logger.Debug("the manager could not announce itself, and tries again", "error", err)
			again = time.After(announceAgain)
			feed = nil // or every write would try it again
		}
		select {
		case <-changed:
		case <-feed:
		case <-renewed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// announce tells what the state does not say yet. While the manager is no member or nobody leads there
// is nobody to tell.
func (m *Manager) announce(ctx context.Context) error {
	mine := m.credentials.Get()
	s := m.store.Snapshot()
	if mine == nil || m.isJoining() {
		return nil
	}
	told := m.announcement(mine)
	now, _ := m.standing.get()
	leader := m.standing.leader()
	// A manager that hears of no leader says it anyhow: it may have been taken out, and is told so.
	if before := s.Member(m.self()); before != nil && sameMember(before, told) && (now == leading || leader != "") {
		return nil
	}
	if now == leading {
		return m.Announce(ctx, told)
	}
	// A manager that has moved is looked for at its old address, so that it hears of no leader; any other
	// manager passes on what it says.
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	var failed []error
	for _, addr := range m.others(s) {
		err := m.announceAt(ctx, addr, told)
		if err == nil {
			return nil
		}
		if connect.CodeOf(err) == connect.CodeUnauthenticated && leader == "" {
			m.outcast(err)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// outcast notes that the other managers do not take this one for one of theirs.
func (m *Manager) outcast(why error) {
	m.problemMu.Lock()
	known := m.problem
	m.problemMu.Unlock()
	if known == why.Error() {
		return
	}
	m.setProblem(why)
	m.logger.Warn("the other managers turn this one away: `warrenctl cluster leave --force` has it forget the cluster, and then it can join anew", "error", why)
}

func (m *Manager) announceAt(ctx context.Context, addr string, told *statev1.Member) error {
	client, end := dialManager(addr, m.credentials.ClientConfig())
	defer end()
	_, err := client.AnnounceManager(ctx, connect.NewRequest(&warrenv1.AnnounceManagerRequest{
		Addr: told.GetAddr(), Hostname: told.GetHostname(), Version: told.GetVersion(), Format: told.GetFormat(),
		Issuer: told.GetIssuer(), CertificateExpiresAt: told.GetCertificateExpiresAt(),
	}))
	return err
}

// others are the addresses of the other managers, the leader's first.
func (m *Manager) others(s state.Snapshot) []string {
	var addrs []string
	if id, addr := m.standing.followed(); id != "" && id != m.self() {
		addrs = append(addrs, cmp.Or(s.Member(id).GetAddr(), addr))
	}
	for told := range s.Members() {
		if addr := told.GetAddr(); told.GetMeta().GetId() != m.self() && addr != "" && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	if node, err := m.core.get(); err == nil && len(addrs) == 0 { // the state is not known yet
		for _, server := range node.Servers() {
			if server.ID != m.self() {
				addrs = append(addrs, server.Addr)
			}
		}
	}
	return addrs
}

// Stand implements api.Local.
func (m *Manager) Stand() *warrenv1.GetManagerResponse {
	now := &warrenv1.GetManagerResponse{Id: m.self(), Version: version.Version, State: m.state()}
	if mine := m.credentials.Get(); mine != nil {
		now.ClusterId = mine.Identity().Cluster
		now.CertificateExpiresAt = timestamppb.New(mine.NotAfter())
	}
	id, addr := m.standing.followed()
	if id != "" {
		now.LeaderId, now.LeaderAddr = id, m.addrOf(id, addr)
	}
	m.problemMu.Lock()
	defer m.problemMu.Unlock()
	now.Problem = m.problem
	return now
}

func (m *Manager) state() warrenv1.ManagerState {
	stands, _ := m.standing.get()
	initialized, err := m.initialized()
	id, _ := m.standing.followed()
	switch {
	case m.isJoining():
		return warrenv1.ManagerState_MANAGER_STATE_JOINING
	case err != nil || !initialized:
		return warrenv1.ManagerState_MANAGER_STATE_WAITING
	case stands == leading:
		return warrenv1.ManagerState_MANAGER_STATE_LEADING
	case id == "":
		return warrenv1.ManagerState_MANAGER_STATE_LEADERLESS
	}
	return warrenv1.ManagerState_MANAGER_STATE_FOLLOWING
}

// setProblem notes why the manager does not do its part; nil when it does.
func (m *Manager) setProblem(err error) {
	m.problemMu.Lock()
	defer m.problemMu.Unlock()
	m.problem = ""
	if err != nil {
		m.problem = err.Error()
	}
}
