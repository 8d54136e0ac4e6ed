package authority

import (
	"slices"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/pki"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestFromTheBeginningOfAReplacementTheNewCAIssues(t *testing.T) {
	c := newCluster(t)
	old := IssuerDigest(c.kept())
	c.rotate()
	if Rotating(c.kept()) != true || IssuerDigest(c.kept()) == old || digests(c.kept())[1] != old || len(c.kept().GetBridge()) == 0 || c.kept().GetRotationStartedAt() == nil {
		t.Fatalf("kept %v", digests(c.kept()))
	}
	key := newKey(t)
	grant, err := c.Issue(&key.PublicKey, agent, "a1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mine, err := pki.New(key, grant.Certificate, grant.Roots, grant.Bridge)
	if err != nil || mine.Issuer(mine.Certificate()) != IssuerDigest(c.kept()) {
		t.Errorf("issued by %q, %v", mine.Issuer(mine.Certificate()), err)
	}
}

func TestAskedForAgainAReplacementGoesOn(t *testing.T) {
	c := newCluster(t)
	c.rotate()
	before := c.kept()
	c.rotate()
	if c.kept() != before {
		t.Error("it began anew")
	}
}

func TestOfTwoWhoReplaceTheCAAtOnceOneDoes(t *testing.T) {
	c := newCluster(t)
	first := c.kept().GetRoots()[0]
	other := New(c.store, statetest.NewProposer(c.store))
	other.SetKey(c.key)
	c.proposer = &meddler{Proposer: c.proposer, meddle: func() {
		if err := other.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	c.rotate()
	if roots := c.kept().GetRoots(); len(roots) != 2 || !slices.Equal(roots[1], first) {
		t.Errorf("%d CAs are trusted", len(roots))
	}
}

func TestTokensNameTheNewCAAndThoseOfTheOldAreTakenWhileItIsTrusted(t *testing.T) {
	c := newCluster(t)
	before := c.token(agent)
	c.rotate()
	after := c.token(agent)
	if before == after {
		t.Error("tokens name the old CA")
	}
	now := time.Now()
	for _, token := range []string{before, after} {
		if _, err := c.Join(token, request(t, newKey(t), now), now); err != nil {
			t.Error(err)
		}
	}
	c.write(func(tr *state.Transaction, s state.Snapshot) {
		state.Update(tr, s.Authority(), func(a *statev1.Authority) { a.Roots, a.Bridge, a.RotationStartedAt = a.GetRoots()[:1], nil, nil })
	})
	_, err := c.Join(before, request(t, newKey(t), now), now)
	says(t, err, ErrToken, "one that was replaced", "`warrenctl cluster join-token worker`")
	if _, err := c.Join(after, request(t, newKey(t), now), now); err != nil {
		t.Error(err)
	}
}

func TestTrustTellsWhoHoldsAReplacementUp(t *testing.T) {
	c := newCluster(t)
	if got := Trust(c.store.Snapshot()); len(got.GetAuthorities()) != 1 || got.GetRotationStartedAt() != nil || got.GetRenewed() != 0 || len(got.GetPending()) != 0 {
		t.Errorf("before it began: %v", got)
	}
	c.rotate()
	renewed := IssuerDigest(c.kept())
	statetest.Put(t, c.store,
		&statev1.Member{Meta: &warrenv1.Meta{Id: "m1"}, Hostname: "one", Issuer: renewed},
		&statev1.Member{Meta: &warrenv1.Meta{Id: "m2"}, Hostname: "two", Issuer: digests(c.kept())[1]},
		statetest.Node("n1", func(n *warrenv1.Node) { n.Status.Issuer = renewed }),
		statetest.Node("n2"),
		statetest.Node("n3", func(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN }),
	)
	got := Trust(c.store.Snapshot())
	var pending []string
	for _, p := range got.GetPending() {
		word := ""
		if p.GetDown() {
			word = " down"
		}
		pending = append(pending, pki.RoleName(p.GetRole())+" "+p.GetId()+" "+p.GetHostname()+word)
	}
	if want := []string{"manager m2 two", "agent n2 n2", "agent n3 n3 down"}; !slices.Equal(pending, want) || got.GetRenewed() != 2 {
		t.Errorf("%d renewed, pending %q", got.GetRenewed(), pending)
	}
	issuing := got.GetAuthorities()[0]
	if issuing.GetDigest() != renewed || got.GetAuthorities()[1].GetDigest() == renewed || issuing.GetExpiresAt().AsTime().Before(time.Now().AddDate(19, 0, 0)) ||
		time.Since(issuing.GetCreatedAt().AsTime()).Abs() > time.Minute || got.GetRotationStartedAt() == nil {
		t.Errorf("told of %v", got.GetAuthorities())
	}
}
