package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/version"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Enlist implements api.Membership.
func (m *Manager) Enlist(ctx context.Context, told *statev1.Member) (index uint64, err error) {
	node, err := m.core.get()
	if err != nil {
		return 0, err
	}
	for _, s := range node.Servers() {
		if s.Addr == told.GetAddr() && s.ID != told.GetMeta().GetId() {
			return 0, api.Refuse("%s is listed at %s already: if it is no more, as after `warrenctl cluster leave --force`, take it out with `warrenctl manager rm %s` and try again", m.describe(s.ID), s.Addr, s.ID)
		}
	}
	// What is known of managers is what a new CA and a new format wait for: of one that is not let in nothing is to be kept.
	if err := node.Room(told.GetMeta().GetId()); err != nil {
		return 0, err
	}
	if err := m.Announce(ctx, told); err != nil {
		return 0, err
	}
	index, err = node.AddNonvoter(ctx, told.GetMeta().GetId(), told.GetAddr())
	if err == nil {
		m.logger.Info("a manager follows the cluster and is catching up", "manager", told.GetMeta().GetId(), "hostname", told.GetHostname(), "addr", told.GetAddr())
	}
	return index, err
}

// Promote implements api.Membership.
func (m *Manager) Promote(ctx context.Context, id string) error {
	node, err := m.core.get()
	if err != nil {
		return err
	}
	servers := node.Servers()
	i := slices.IndexFunc(servers, func(s consensus.Server) bool { return s.ID == id })
	if i < 0 {
		return api.Refuse("manager %s does not follow this cluster: let it join first (`warrenctl cluster join`)", id)
	}
	if servers[i].Voter {
		return nil
	}
	if err := node.AddVoter(ctx, id, servers[i].Addr); err != nil {
		return err
	}
	m.logger.Info("a manager votes", "manager", id)
	return nil
}

// Announce implements api.Membership. A manager that has moved is given its new address in raft, too.
func (m *Manager) Announce(ctx context.Context, told *statev1.Member) error {
	id := told.GetMeta().GetId()
	if err := checkReach("the manager's address", told.GetAddr()); err != nil {
		return api.Refuse("%v", err)
	}
	for range maxAnnounceAttempts {
		t := state.New(time.Now())
		s := m.store.Snapshot()
		if authority.IsRemoved(s.Authority(), id) {
			return authority.ErrRemoved // also where that has come about since the call was let in
		}
		before := s.Member(id)
		switch format := state.FormatOf(s.Cluster()); {
		case before == nil && state.FormatOf(told) < format:
			return api.Refuse("the cluster's state is of format %d, and warren-manager %s knows formats up to %d: install release %s there, as here, and try again",
				format, told.GetVersion(), state.FormatOf(told), version.Version)
		case before == nil:
			t.Create(told)
		case !sameMember(before, told):
			state.Update(t, before, func(after *statev1.Member) {
				after.Hostname, after.Addr, after.Version = told.GetHostname(), cmp.Or(told.GetAddr(), after.GetAddr()), told.GetVersion()
				after.Format = told.GetFormat()
				after.Issuer = cmp.Or(told.GetIssuer(), after.GetIssuer())
				if told.GetCertificateExpiresAt() != nil {
					after.CertificateExpiresAt = told.GetCertificateExpiresAt()
				}
			})
		}
		if t.Len() > 0 {
			if kept := s.Authority(); kept != nil {
				t.Check(kept) // nobody was removed meanwhile
			}
			if cluster := s.Cluster(); cluster != nil {
				t.Check(cluster) // nor was the format raised to one that this manager does not know
			}
			results, err := m.core.Propose(ctx, t)
			if err != nil {
				return err
			}
			if results != nil {
				continue // somebody was faster
			}
		}
		return m.readdress(ctx, id, told.GetAddr())
	}
	return errors.New("what is known of the managers is written all the time: try again later")
}

const maxAnnounceAttempts = 8

func sameMember(before, told *statev1.Member) bool {
	return before.GetHostname() == told.GetHostname() && before.GetAddr() == cmp.Or(told.GetAddr(), before.GetAddr()) &&
		before.GetVersion() == told.GetVersion() && before.GetFormat() == told.GetFormat() && before.GetIssuer() == cmp.Or(told.GetIssuer(), before.GetIssuer()) &&
		(told.GetCertificateExpiresAt() == nil || proto.Equal(before.GetCertificateExpiresAt(), told.GetCertificateExpiresAt()))
}

func (m *Manager) readdress(ctx context.Context, id, addr string) error {
	if id == m.self() || addr == "" {
		return nil
	}
	node, err := m.core.get()
	if err != nil {
		return err
	}
	servers := node.Servers()
	for _, s := range servers {
		if s.ID == id && s.Addr != addr && s.Voter {
			return node.AddVoter(ctx, id, addr)
		}
	}
	return nil
}

// Expel implements api.Membership.
func (m *Manager) Expel(ctx context.Context, ref string, force, itself bool) (id string, err error) {
	node, err := m.core.get()
	if err != nil {
		return "", err
	}
	servers := node.Servers()
	if id, err = m.findManager(servers, ref); err != nil {
		return "", err
	}
	if slices.ContainsFunc(servers, func(s consensus.Server) bool { return s.ID == id }) {
		switch {
		case id == m.self() && !force:
			return "", api.Refuse("%s leads: run `warrenctl cluster leave` on its machine, which hands the lead over first", m.describe(id))
		case !itself && !force && node.Reachable()[id]:
			return "", api.Refuse("%s is up: run `warrenctl cluster leave` on its machine, or use --force", m.describe(id))
		}
		if err := m.mayGo(node, servers, id, force); err != nil {
			return "", err
		}
		if err := node.Remove(ctx, id); err != nil {
			return "", err
		}
	}
	m.logger.Info("a manager was taken out", "manager", id)
	return id, m.disown(ctx, id)
}

// mayGo refuses to let a manager go where the others could then agree on nothing.
func (m *Manager) mayGo(node *consensus.Node, servers []consensus.Server, id string, force bool) error {
	reachable := node.Reachable()
	voters, up := 0, 0
	for _, s := range servers {
		if s.ID == id || !s.Voter {
			continue
		}
		voters++
		if s.ID == m.self() || reachable[s.ID] {
			up++
		}
	}
	switch quorum := voters/2 + 1; {
	case voters == 0:
		return api.Refuse("%s is the last manager that votes", m.describe(id))
	case up < quorum && !force:
		return api.Refuse("without %s the cluster could not agree on anything: of the other %d managers %d must be reachable and %d are; "+
			"bring the others back first, or use --force and then `warrenctl cluster recover` on a manager that is left", m.describe(id), voters, quorum, up)
	}
	return nil
}

// describe names a manager for people.
func (m *Manager) describe(id string) string {
	if name := m.store.Snapshot().Member(id).GetHostname(); name != "" {
		return fmt.Sprintf("manager %s (%s)", name, id)
	}
	return "manager " + id
}

// findManager returns the id of the manager that ref names: by id, hostname, or the beginning of an id.
func (m *Manager) findManager(servers []consensus.Server, ref string) (string, error) {
	s := m.store.Snapshot()
	known := map[string]bool{}
	for _, server := range servers {
		known[server.ID] = true
	}
	for told := range s.Members() {
		known[told.GetMeta().GetId()] = true
	}
	if known[ref] {
		return ref, nil
	}
	var named, begun []string
	for id := range known {
		if s.Member(id).GetHostname() == ref {
			named = append(named, id)
		}
		if strings.HasPrefix(id, ref) {
			begun = append(begun, id)
		}
	}
	found := named
	if len(found) == 0 {
		found = begun
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", api.NotFound("no manager is called %s or has an id that begins so: `warrenctl manager ls` lists them", ref)
	}
	slices.Sort(found)
	return "", api.Refuse("%s may be any of the managers %s: use the id", ref, strings.Join(found, ", "))
}

// disown forgets a manager and makes its certificates worthless.
func (m *Manager) disown(ctx context.Context, id string) error {
	for range maxAnnounceAttempts {
		s, now := m.store.Snapshot(), time.Now()
		t := state.New(now)
		if told := s.Member(id); told != nil {
			t.Delete(told)
		}
		authority.Remove(t, s, id, now)
		if t.Len() == 0 {
			return nil
		}
		results, err := m.core.Propose(ctx, t)
		if err != nil {
			return err
		}
		if results == nil {
			m.core.recheck()
			return nil
		}
	}
	return errors.New("what is known of the managers is written all the time: try again later")
}

// forgetOthers disowns every manager but this one.
func (m *Manager) forgetOthers(ctx context.Context) error {
	for told := range m.store.Snapshot().Members() {
		if id := told.GetMeta().GetId(); id != m.self() {
			if err := m.disown(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}
