package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/pki"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var (
	// ErrToken says that a join token is worth nothing here.
	ErrToken = errors.New("the join token is not one of this cluster's, or was replaced by a newer one: " +
		"`warrenctl cluster join-token worker` (or manager) on a manager's machine prints the one to use")
	// ErrTokenExpired says that a join token's time is over.
	ErrTokenExpired = errors.New("the join token has expired: `warrenctl cluster join-token worker` (or manager) on a manager's machine makes a new one")
	// ErrUserRemoved says that a user is not one any more, or has been given another key.
	ErrUserRemoved = errors.New("this user is not known any more: an administrator makes a new one with `warrenctl user create`")
	// ErrRemoved says that a member was removed from the cluster.
	ErrRemoved = errors.New("this machine was removed from the cluster: run `warrenctl cluster leave --force` on it, and let it join anew")
)

// DefaultLife is how long certificates are good where the cluster does not say.
const DefaultLife = 30 * 24 * time.Hour

const (
	// tokenLife is how long a join token is good unless something else is asked for.
	tokenLife = 7 * 24 * time.Hour
	// maxAttempts bounds how often a write looks again because others have written.
	maxAttempts = 32

	sealedCAKey = "ca key"
)

// Authority issues certificates for one cluster.
type Authority struct {
	store    *state.Store
	proposer loop.Proposer
	key      atomic.Pointer[Key]
}

// New returns an authority that works on a store. It can do nothing until it is given the cluster's key.
func New(store *state.Store, proposer loop.Proposer) *Authority {
	return &Authority{store: store, proposer: proposer}
}

// SetKey gives the authority the cluster's key.
func (a *Authority) SetKey(k Key) { a.key.Store(&k) }

// Forget takes the key away.
func (a *Authority) Forget() { a.key.Store(nil) }

// ShareKey returns the cluster's key, for a machine that is a manager from now on.
func (a *Authority) ShareKey() ([]byte, error) {
	k := a.key.Load()
	if k == nil {
		return nil, errors.New("this manager does not hold the cluster's key")
	}
	return k.Secret(), nil
}

// Found makes the authority of a new cluster: what is to be kept of it in the state.
func Found(cluster string, k Key, now time.Time) (*statev1.Authority, error) {
	ca, err := pki.NewCA(cluster, now)
	if err != nil {
		return nil, err
	}
	private, err := ca.Key()
	if err != nil {
		return nil, err
	}
	sealed, err := k.Seal(sealedCAKey, private)
	if err != nil {
		return nil, err
	}
	return &statev1.Authority{Meta: &warrenv1.Meta{Id: id.New()}, Roots: [][]byte{ca.Certificate.Raw}, SealedKey: sealed}, nil
}

// issuer returns the CA that issues, and what there is to know of it.
func (a *Authority) issuer() (*pki.CA, *statev1.Authority, Key, error) {
	kept := a.store.Snapshot().Authority()
	k := a.key.Load()
	if kept == nil || k == nil {
		return nil, nil, Key{}, errors.New("this manager cannot issue certificates: it is not part of a cluster, or does not hold its key")
	}
	private, err := k.Open(sealedCAKey, kept.GetSealedKey())
	if err != nil {
		return nil, nil, Key{}, err
	}
	key, err := pki.ParseKey(private)
	if err != nil {
		return nil, nil, Key{}, err
	}
	if len(kept.GetRoots()) == 0 {
		return nil, nil, Key{}, errors.New("the cluster's state holds a CA key without its certificate: restore a backup")
	}
	ca, err := pki.LoadCA(kept.GetRoots()[0], key)
	return ca, kept, *k, err
}

// life returns how long members' certificates are good.
func life(spec *warrenv1.ClusterSpec) time.Duration {
	if spec.GetCertificateLife() == nil {
		return DefaultLife
	}
	return spec.GetCertificateLife().AsDuration()
}

// Grant is what a member is given.
type Grant struct {
	Certificate []byte
	Roots       [][]byte
	Bridge      []byte
	Identity    pki.Identity
}

// Join gives whoever shows a good token a certificate. It fails with ErrToken, ErrTokenExpired,
// ErrRemoved, pki.ErrClock, or what is wrong with the request.
func (a *Authority) Join(token string, request *warrenv1.CertificateRequest, now time.Time) (Grant, error) {
	shown, err := jointoken.Parse(token)
	if err != nil {
		return Grant{}, fmt.Errorf("%w (%w)", ErrToken, err)
	}
	kept := a.store.Snapshot().Authority()
	if !slices.Contains(digests(kept), shown.Digest) {
		return Grant{}, fmt.Errorf("%w (it names a CA that is not this cluster's: another cluster's, or one that was replaced)", ErrToken)
	}
	role, err := roleOf(kept, shown, now)
	if err != nil {
		return Grant{}, err
	}
	public, err := pki.Check(request, now)
	if err != nil {
		return Grant{}, err
	}
	name, err := pki.NameOf(public)
	if err != nil {
		return Grant{}, err
	}
	return a.Issue(public, role, name, now)
}

// roleOf returns the role that a token stands for.
func roleOf(kept *statev1.Authority, shown jointoken.Token, now time.Time) (warrenv1.Role, error) {
	for _, t := range kept.GetTokens() {
		// The role that the token says is for people; one that says another than its own was tampered with.
		if subtle.ConstantTimeCompare(t.GetHash(), shown.Hash()) != 1 || t.GetRole() != shown.Role {
			continue
		}
		if now.After(t.GetExpiresAt().AsTime()) {
			return 0, ErrTokenExpired
		}
		return t.GetRole(), nil
	}
	return 0, ErrToken
}

// Renew gives a member or user a certificate for the name and role it has. It fails as Join does. Members
// may come with a new key. A user is known by the key, which therefore must be the same.
func (a *Authority) Renew(role warrenv1.Role, name string, request *warrenv1.CertificateRequest, now time.Time) (Grant, error) {
	public, err := pki.Check(request, now)
	if err != nil {
		return Grant{}, err
	}
	s := a.store.Snapshot()
	if role == warrenv1.Role_ROLE_AGENT || role == warrenv1.Role_ROLE_MANAGER {
		return a.issue(public, role, name, life(s.Cluster().GetSpec()), now)
	}
	user := s.User(name)
	digest, err := keyDigest(public)
	if err != nil {
		return Grant{}, err
	}
	if user == nil || user.GetRole() != role || subtle.ConstantTimeCompare(user.GetKeyDigest(), digest) != 1 {
		return Grant{}, ErrUserRemoved
	}
	return a.issue(public, role, name, user.GetLife().AsDuration(), now)
}

// keyDigest is as pki.KeyDigest of a certificate for the key.
func keyDigest(public *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

// Issue gives the holder of a key a certificate for a name and role, unless the name was removed. Hosts
// are what a server may be called by.
func (a *Authority) Issue(public *ecdsa.PublicKey, role warrenv1.Role, name string, now time.Time, hosts ...string) (Grant, error) {
	return a.issue(public, role, name, life(a.store.Snapshot().Cluster().GetSpec()), now, hosts...)
}

func (a *Authority) issue(public *ecdsa.PublicKey, role warrenv1.Role, name string, life time.Duration, now time.Time, hosts ...string) (Grant, error) {
	ca, kept, _, err := a.issuer()
	if err != nil {
		return Grant{}, err
	}
	if IsRemoved(kept, name) {
		return Grant{}, ErrRemoved
	}
	who := pki.Identity{Cluster: a.store.Snapshot().Cluster().GetMeta().GetId(), Role: role, Name: name}
	certificate, err := ca.Issue(public, who, life, now, hosts...)
	if err != nil {
		return Grant{}, err
	}
	return Grant{Certificate: certificate, Roots: kept.GetRoots(), Bridge: kept.GetBridge(), Identity: who}, nil
}

// Token returns the join token of a role and when it expires. There is a new one where rotate asks for
// it and where the old one has expired; then the old one is worth nothing. A ttl other than 0 counts from
// now.
func (a *Authority) Token(ctx context.Context, role warrenv1.Role, rotate bool, ttl time.Duration) (jointoken.Token, time.Time, error) {
	for range maxAttempts {
		ca, kept, k, err := a.issuer()
		if err != nil {
			return jointoken.Token{}, time.Time{}, err
		}
		now := time.Now()
		before := tokenOf(kept, role)
		after := nextToken(before, role, rotate, ttl, now)
		token := jointoken.Token{Digest: pki.Digest(ca.Certificate), Role: role, Secret: k.tokenSecret(role, after.GetSerial())}
		if after == before {
			return token, after.GetExpiresAt().AsTime(), nil
		}
		after.Hash = token.Hash()
		t := state.New(now)
		state.Update(t, kept, func(changed *statev1.Authority) {
			changed.Tokens = slices.DeleteFunc(changed.GetTokens(), func(t *statev1.JoinToken) bool { return t.GetRole() == role })
			changed.Tokens = append(changed.Tokens, after)
		})
		results, err := a.proposer.Propose(ctx, t)
		if err != nil {
			return jointoken.Token{}, time.Time{}, err
		}
		if results == nil {
			return token, after.GetExpiresAt().AsTime(), nil
		}
	}
	return jointoken.Token{}, time.Time{}, errors.New("the tokens are written all the time: try again later")
}

func tokenOf(kept *statev1.Authority, role warrenv1.Role) *statev1.JoinToken {
	for _, t := range kept.GetTokens() {
		if t.GetRole() == role {
			return t
		}
	}
	return nil
}

// nextToken decides what becomes of a role's token, nil where there is none yet: before itself where it
// can stay. The hash is for the caller to fill in.
func nextToken(before *statev1.JoinToken, role warrenv1.Role, rotate bool, ttl time.Duration, now time.Time) *statev1.JoinToken {
	fresh := before == nil || rotate || now.After(before.GetExpiresAt().AsTime())
	if !fresh && ttl == 0 {
		return before
	}
	after := &statev1.JoinToken{Role: role, Serial: before.GetSerial()}
	if fresh {
		after.Serial++
	}
	if ttl == 0 {
		ttl = tokenLife
	}
	after.ExpiresAt = timestamppb.New(now.Add(ttl))
	return after
}
