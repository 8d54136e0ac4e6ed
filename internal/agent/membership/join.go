package membership

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ParseToken reads a join token for an agent. Its errors never repeat what they were given.
func ParseToken(text string) (jointoken.Token, error) {
	token, err := jointoken.Parse(text)
	if err == nil && token.Role != warrenv1.Role_ROLE_AGENT {
		err = errors.New("it is a manager's join token and this is an agent: use the one that `warrenctl cluster join-token worker` prints, " +
			"or give this one to the warren-manager of the machine")
	}
	return token, err
}

// CheckAddr tells what is wrong with a manager's address.
func CheckAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if number, noNumber := strconv.ParseUint(port, 10, 16); err != nil || host == "" || noNumber != nil || number == 0 {
		return fmt.Errorf("%q is not the address of a manager: it must be HOST:PORT, such as 10.0.0.5:7420", addr)
	}
	return nil
}

// Join makes this machine a member of the cluster that a token is of, at the first of the managers that
// lets it in. To join the cluster it is a member of already changes nothing. What fails says to people what
// to do, and is a *connect.Error: invalid_argument for a token or an address that is none, failed_precondition
// where this machine is a member of another cluster or the clocks are apart, unauthenticated where a manager
// does not accept the token or is not the one that the token pins, unavailable where none was reached.
func (m *Membership) Join(ctx context.Context, text string, managers []string) (*pki.Credentials, error) {
	token, err := ParseToken(text)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	for _, addr := range managers {
		if err := CheckAddr(addr); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	if err := m.take(ctx); err != nil {
		return nil, err
	}
	defer m.give()
	if mine := m.holder.Get(); mine != nil {
		return mine, already(mine, token)
	}
	key, err := m.joiningKey()
	if err != nil {
		return nil, err
	}
	var failures refusals
	for _, manager := range managers {
		answer, err := ask(ctx, manager, token, key)
		if err == nil {
			return m.enter(key, token, answer, manager)
		}
		failures = append(failures, refusal{manager, err})
		if ctx.Err() != nil || final(err) {
			break
		}
	}
	return nil, failures.explain("join the cluster")
}

// already tells whether a member may be said to join with a token: if that is of its own cluster.
func already(mine *pki.Credentials, token jointoken.Token) error {
	for _, root := range mine.Roots() {
		if pki.Digest(root) == token.Digest {
			return nil
		}
	}
	return refuse(connect.CodeFailedPrecondition, "this machine is node %s of cluster %s already, and the join token is of another cluster, or from before the CA was replaced: "+
		"if it is to move, run `warrenctl cluster leave` here first", mine.Identity().Name, mine.Identity().Cluster)
}

// joiningKey returns the key to join with, the same until it has worked.
func (m *Membership) joiningKey() (*ecdsa.PrivateKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key != nil {
		return m.key, nil
	}
	key, err := pki.NewKey()
	if err == nil {
		m.key = key
	}
	return key, err
}

// ask asks one manager for a certificate.
func ask(ctx context.Context, manager string, token jointoken.Token, key *ecdsa.PrivateKey) (*warrenv1.JoinResponse, error) {
	request, err := pki.NewRequest(key, time.Now())
	if err != nil {
		return nil, err
	}
	client, hangUp := dial(manager, pki.PinnedConfig(token.Digest))
	defer hangUp()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := client.Join(ctx, connect.NewRequest(&warrenv1.JoinRequest{Token: token.String(), Certificate: request}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// enter takes a manager's answer: from then on this machine is a member.
func (m *Membership) enter(key *ecdsa.PrivateKey, token jointoken.Token, answer *warrenv1.JoinResponse, manager string) (*pki.Credentials, error) {
	mine, err := pki.New(key, answer.GetCertificate(), answer.GetRoots(), answer.GetBridge())
	if err == nil {
		err = checkIdentity(mine, key)
	}
	if err == nil {
		err = already(mine, token)
	}
	if err != nil {
		return nil, refuse(connect.CodeInternal, "join the cluster: what %s answered cannot be used: %w", manager, err)
	}
	// Until the credentials are there, none of this counts.
	if err := m.Record.RecordManagers(union(answer.GetManagers(), []string{manager})); err != nil {
		return nil, err
	}
	if err := mine.Save(m.path()); err != nil {
		return nil, fmt.Errorf("join the cluster: %w", err)
	}
	m.mu.Lock()
	m.key = nil
	m.mu.Unlock()
	m.set(mine)
	m.Logger.Info("joined the cluster", "cluster", mine.Identity().Cluster, "node", mine.Identity().Name, "manager", manager, "expires", mine.NotAfter())
	return mine, nil
}

// checkIdentity tells whether a certificate is what an agent with that key must have.
func checkIdentity(mine *pki.Credentials, key *ecdsa.PrivateKey) error {
	name, err := pki.NameOf(&key.PublicKey)
	if err != nil {
		return err
	}
	if who := mine.Identity(); who.Role != warrenv1.Role_ROLE_AGENT || who.Name != name || who.Cluster == "" {
		return fmt.Errorf("the certificate is for %s %s of cluster %q, not for agent %s", pki.RoleName(who.Role), who.Name, who.Cluster, name)
	}
	return nil
}

// refusal is why one manager did not do what was asked.
type refusal struct {
	manager string
	err     error
}

type refusals []refusal

// final tells whether an error is an answer that another manager would give as well.
func final(err error) bool {
	switch code := connect.CodeOf(err); code {
	case connect.CodeUnauthenticated, connect.CodeFailedPrecondition, connect.CodeInvalidArgument, connect.CodePermissionDenied:
		return connect.IsWireError(err)
	}
	return false
}

// explain makes one error of all: with the code of the gravest, each manager's with its address.
func (all refusals) explain(what string) error {
	if len(all) == 0 {
		return refuse(connect.CodeInvalidArgument, "%s: no address of a manager is known", what)
	}
	code, said := connect.CodeUnavailable, make([]string, 0, len(all))
	for _, r := range all {
		one, text := explain(r.manager, r.err)
		if one != connect.CodeUnavailable {
			code = one
		}
		said = append(said, text)
	}
	return refuse(code, "%s: %s", what, strings.Join(said, "; "))
}
