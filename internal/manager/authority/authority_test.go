package authority

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/pki"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	agent   = warrenv1.Role_ROLE_AGENT
	manager = warrenv1.Role_ROLE_MANAGER
	viewer  = warrenv1.Role_ROLE_VIEWER
)

// cluster is the authority of a cluster over a store without raft.
type cluster struct {
	*Authority
	t     testing.TB
	store *state.Store
	key   Key
}

func newCluster(t testing.TB, edits ...func(*warrenv1.Cluster)) *cluster {
	t.Helper()
	key := NewKey()
	kept, err := Found(statetest.ClusterID, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := statetest.New(t, statetest.Cluster(edits...), kept)
	c := &cluster{New(store, statetest.NewProposer(store)), t, store, key}
	c.SetKey(key)
	return c
}

// lives has certificates be good for that long.
func lives(d time.Duration) func(*warrenv1.Cluster) {
	return func(c *warrenv1.Cluster) { c.Spec.CertificateLife = durationpb.New(d) }
}

func (c *cluster) kept() *statev1.Authority { return c.store.Snapshot().Authority() }

func (c *cluster) token(role warrenv1.Role) string {
	c.t.Helper()
	token, _, err := c.Token(context.Background(), role, false, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	return token.String()
}

func (c *cluster) write(build func(*state.Transaction, state.Snapshot)) {
	c.t.Helper()
	transaction := state.New(time.Now())
	build(transaction, c.store.Snapshot())
	statetest.Commit(c.t, statetest.NewProposer(c.store), transaction)
}

func (c *cluster) rotate() {
	c.t.Helper()
	if err := c.Rotate(context.Background()); err != nil {
		c.t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t testing.TB, key *ecdsa.PrivateKey, at time.Time) *warrenv1.CertificateRequest {
	t.Helper()
	r, err := pki.NewRequest(key, at)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// says checks that an error is of a kind and tells the user all of that.
func says(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got %v, want %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestAMachineWithATokenIsGivenACertificateOfTheTokensRole(t *testing.T) {
	c := newCluster(t)
	for _, role := range []warrenv1.Role{agent, manager} {
		key, now := newKey(t), time.Now()
		grant, err := c.Join(c.token(role), request(t, key, now), now)
		if err != nil {
			t.Fatal(err)
		}
		mine, err := pki.New(key, grant.Certificate, grant.Roots, grant.Bridge)
		if err != nil {
			t.Fatal(err)
		}
		name, err := pki.NameOf(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if want := (pki.Identity{Cluster: statetest.ClusterID, Role: role, Name: name}); mine.Identity() != want || grant.Identity != want {
			t.Errorf("it is %+v, not %+v", mine.Identity(), want)
		}
		if left := mine.NotAfter().Sub(now); left < DefaultLife-2*time.Second || left > DefaultLife {
			t.Errorf("it is good for %v", left)
		}
		again, err := c.Join(c.token(role), request(t, key, now), now)
		if err != nil || again.Identity != grant.Identity {
			t.Errorf("the same machine again is %+v, %v", again.Identity, err)
		}
	}
}

func TestWhoeverMayNotJoinIsToldWhatToDo(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	now := time.Now()
	key := newKey(t)
	good := c.token(agent)
	c.token(manager)
	altered := func(edit func(*jointoken.Token)) string {
		token, err := jointoken.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		edit(&token)
		return token.String()
	}
	late := request(t, key, now)
	tampered := request(t, key, now)
	tampered.MadeAt = timestamppb.New(now.Add(time.Minute))
	for _, x := range []struct {
		name    string
		token   string
		request *warrenv1.CertificateRequest
		at      time.Time
		kind    error
		words   []string
	}{
		{"without a token", "", request(t, key, now), now, ErrToken, []string{"`warrenctl cluster join-token worker`"}},
		{"with a wrong secret", altered(func(t *jointoken.Token) { t.Secret[0] ^= 1 }), request(t, key, now), now, ErrToken, []string{"`warrenctl cluster join-token worker`"}},
		{"with a worker's secret as a manager", altered(func(t *jointoken.Token) { t.Role = manager }), request(t, key, now), now, ErrToken, nil},
		{"with another cluster's token", other.token(agent), request(t, key, now), now, ErrToken, []string{"another cluster's"}},
		{"with this cluster's secret and another's CA", altered(func(t *jointoken.Token) { t.Digest = IssuerDigest(other.kept()) }), request(t, key, now), now, ErrToken, nil},
		{"too late", good, request(t, key, now.Add(8*24*time.Hour)), now.Add(8 * 24 * time.Hour), ErrTokenExpired, []string{"makes a new one"}},
		{"with an old request", good, late, now.Add(6 * time.Minute), pki.ErrClock, []string{"set the clocks"}},
		{"with an altered request", good, tampered, now, pki.ErrRequest, nil},
		{"with a clock an hour behind", good, request(t, key, now.Add(-time.Hour)), now, pki.ErrClock, []string{"the machine that asks has", "set the clocks"}},
		{"with a clock an hour ahead", good, request(t, key, now.Add(time.Hour)), now, pki.ErrClock, []string{"set the clocks"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, err := c.Join(x.token, x.request, x.at)
			says(t, err, x.kind, x.words...)
		})
	}
	t.Run("after it was removed", func(t *testing.T) {
		name, err := pki.NameOf(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		c.write(func(tr *state.Transaction, s state.Snapshot) { Remove(tr, s, name, now) })
		_, err = c.Join(good, request(t, key, now), now)
		says(t, err, ErrRemoved, "`warrenctl cluster leave --force`", "join anew")
		_, err = c.Renew(agent, name, request(t, key, now), now)
		says(t, err, ErrRemoved)
	})
}

func TestATokenIsShownAgainUntilItIsReplaced(t *testing.T) {
	c := newCluster(t)
	first := c.token(agent)
	if again := c.token(agent); again != first {
		t.Error("asked for again, it is another one")
	}
	if c.token(manager) == first {
		t.Error("workers and managers have the same token")
	}
	replaced, _, err := c.Token(t.Context(), agent, true, 0)
	if err != nil || replaced.String() == first {
		t.Errorf("replaced by the same: %v", err)
	}
	now := time.Now()
	_, err = c.Join(first, request(t, newKey(t), now), now)
	says(t, err, ErrToken, "replaced by a newer one")
	if _, err := c.Join(replaced.String(), request(t, newKey(t), now), now); err != nil {
		t.Error(err)
	}
	if n := len(c.kept().GetTokens()); n != 2 {
		t.Errorf("%d tokens are kept", n)
	}
}

func TestTheTimeOfATokenCanBeSet(t *testing.T) {
	c := newCluster(t)
	first := c.token(agent)
	longer, until, err := c.Token(t.Context(), agent, false, 90*24*time.Hour)
	if err != nil || longer.String() != first || time.Until(until) < 89*24*time.Hour {
		t.Errorf("until %v, %v", until, err)
	}
	now := time.Now().Add(30 * 24 * time.Hour)
	if _, err := c.Join(first, request(t, newKey(t), now), now); err != nil {
		t.Error(err)
	}
}

func TestNothingThatIsKeptLetsAnybodyIn(t *testing.T) {
	c := newCluster(t)
	token, _, err := c.Token(t.Context(), manager, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := proto.Marshal(c.kept())
	if err != nil {
		t.Fatal(err)
	}
	ca, _, _, err := c.issuer()
	if err != nil {
		t.Fatal(err)
	}
	private, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	for what, secret := range map[string][]byte{"a token": token.Secret, "the CA's key": private[len(private)-80:], "the cluster's key": c.key.secret} {
		if bytes.Contains(kept, secret) {
			t.Errorf("the state holds %s", what)
		}
	}
	stranger := New(c.store, statetest.NewProposer(c.store))
	if _, err := stranger.Issue(&newKey(t).PublicKey, agent, "a", time.Now()); err == nil || !strings.Contains(err.Error(), "does not hold its key") {
		t.Errorf("without the cluster's key: %v", err)
	}
	stranger.SetKey(NewKey())
	if _, err := stranger.Issue(&newKey(t).PublicKey, agent, "a", time.Now()); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("with another cluster's key: %v", err)
	}
}

func TestTokensSurviveOthersWrites(t *testing.T) {
	c := newCluster(t)
	// Somebody else's write comes in between, once.
	c.proposer = &meddler{Proposer: c.proposer, meddle: func() { c.write(func(tr *state.Transaction, s state.Snapshot) { Remove(tr, s, "x", time.Now()) }) }}
	c.token(agent)
	if len(c.kept().GetTokens()) != 1 || !IsRemoved(c.kept(), "x") {
		t.Errorf("kept %v", c.kept())
	}
}

// meddler has something happen before the first proposal.
type meddler struct {
	loop.Proposer
	meddle func()
}

func (m *meddler) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	if f := m.meddle; f != nil {
		m.meddle = nil
		f()
	}
	return m.Proposer.Propose(ctx, transactions...)
}

func TestAMemberMayRenewWithANewKeyAndAUserWithItsOwnAlone(t *testing.T) {
	c := newCluster(t)
	now := time.Now()
	grant, err := c.Renew(agent, "a1", request(t, newKey(t), now), now)
	if err != nil || grant.Identity.Name != "a1" || grant.Identity.Role != agent {
		t.Errorf("a member is %+v, %v", grant.Identity, err)
	}
	key := newKey(t)
	digest, err := keyDigest(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	statetest.Put(t, c.store, &warrenv1.User{Meta: &warrenv1.Meta{Id: "ann"}, Role: viewer, KeyDigest: digest, Life: durationpb.New(time.Hour)})
	grant, err = c.Renew(viewer, "ann", request(t, key, now), now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(grant.Certificate)
	if err != nil || cert.NotAfter.Sub(now) > time.Hour || !bytes.Equal(pki.KeyDigest(cert), digest) {
		t.Errorf("a user's certificate is good until %v, %v", cert.NotAfter, err)
	}
	for what, f := range map[string]func() (Grant, error){
		"another key":       func() (Grant, error) { return c.Renew(viewer, "ann", request(t, newKey(t), now), now) },
		"another role":      func() (Grant, error) { return c.Renew(warrenv1.Role_ROLE_ADMIN, "ann", request(t, key, now), now) },
		"a name of nobody":  func() (Grant, error) { return c.Renew(viewer, "bob", request(t, key, now), now) },
		"no name at all":    func() (Grant, error) { return c.Renew(viewer, "", request(t, key, now), now) },
		"no role and a key": func() (Grant, error) { return c.Renew(warrenv1.Role_ROLE_ANONYMOUS, "ann", request(t, key, now), now) },
	} {
		_, err := f()
		if says(t, err, ErrUserRemoved, "`warrenctl user create`"); t.Failed() {
			t.Fatalf("with %s", what)
		}
	}
}

// TestARemovedMemberIsRememberedUntilItsLastCertificateHasExpired: whatever the settings were when its
// certificates were issued.
func TestARemovedMemberIsRememberedUntilItsLastCertificateHasExpired(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(t, lives(24*time.Hour))
		now := time.Now()
		newest := map[string]time.Time{} // when the last certificate of a name expires
		removed := map[string]bool{}
		names := []string{"a", "b", "c"}
		name := func() string { return rapid.SampledFrom(names).Draw(rt, "name") }
		key := newKey(t)
		rt.Repeat(map[string]func(*rapid.T){
			"issue": func(*rapid.T) {
				who := name()
				grant, err := c.Issue(&key.PublicKey, agent, who, now)
				if removed[who] != errors.Is(err, ErrRemoved) {
					rt.Fatalf("%s, removed %v, is issued a certificate: %v", who, removed[who], err)
				}
				if err != nil {
					return
				}
				cert, err := x509.ParseCertificate(grant.Certificate)
				if err != nil {
					rt.Fatal(err)
				}
				if cert.NotAfter.After(newest[who]) {
					newest[who] = cert.NotAfter
				}
			},
			"remove": func(*rapid.T) {
				who := name()
				c.write(func(tr *state.Transaction, s state.Snapshot) { Remove(tr, s, who, now) })
				removed[who] = true
			},
			// Removing anybody forgets whom it is time to forget.
			"remove another": func(*rapid.T) {
				c.write(func(tr *state.Transaction, s state.Snapshot) { Remove(tr, s, fmt.Sprint("other", now.UnixNano()), now) })
			},
			"set life": func(*rapid.T) {
				life := time.Duration(rapid.IntRange(1, 1000).Draw(rt, "hours")) * time.Hour
				c.write(func(tr *state.Transaction, s state.Snapshot) {
					spec := proto.CloneOf(s.Cluster().GetSpec())
					spec.CertificateLife = durationpb.New(life)
					Respec(tr, s, spec, now)
					state.Update(tr, s.Cluster(), func(c *warrenv1.Cluster) { c.Spec = spec })
				})
			},
			"wait": func(*rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 500).Draw(rt, "wait")) * time.Hour) },
			"": func(*rapid.T) {
				for who := range removed {
					forgotten := !IsRemoved(c.kept(), who)
					if forgotten && now.Before(newest[who]) {
						rt.Fatalf("%s is forgotten and has a certificate until %v, at %v", who, newest[who], now)
					}
					if forgotten {
						delete(removed, who)
					}
				}
			},
		})
	})
}

func TestTheListOfRemovedMembersIsBounded(t *testing.T) {
	c := newCluster(t, lives(time.Hour))
	now := time.Now()
	for i := range 100 {
		c.write(func(tr *state.Transaction, s state.Snapshot) {
			Remove(tr, s, fmt.Sprint("n", i), now.Add(time.Duration(i)*10*time.Minute))
		})
	}
	if n := len(c.kept().GetRemoved()); n > 13 {
		t.Errorf("%d are kept of 6 an hour, with certificates good for one", n)
	}
	before := len(c.kept().GetRemoved())
	transaction := state.New(now)
	if Remove(transaction, c.store.Snapshot(), "n99", now); transaction.Len() != 0 {
		t.Errorf("one is removed twice: %d", before)
	}
}
