package pki

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// rotating is a cluster whose CA is replaced again and again, and its members with what each of them has
// heard of it.
type rotating struct {
	t       *rapid.T
	now     time.Time
	ca      *CA // issues
	roots   [][]byte
	bridge  []byte
	members []*Credentials // managers, then agents
	servers int
	away    *Credentials   // a manager that hears of nothing
	cutOff  []*Credentials // members of earlier CAs that were away while these were replaced
	checked map[[2]*Credentials]bool
}

// begin begins to replace the CA, unless that is under way.
func (r *rotating) begin() {
	if len(r.roots) > 1 {
		return
	}
	next, bridge, err := r.ca.Successor(r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	r.roots, r.bridge, r.ca = [][]byte{next.Certificate.Raw, r.ca.Certificate.Raw}, bridge, next
}

// learn has a member hear of the CAs, as from the session.
func (r *rotating) learn(i int) {
	told, err := r.members[i].Trusting(r.roots, r.bridge)
	if err != nil {
		r.t.Fatal(err)
	}
	r.members[i] = told
}

// renew has a member renew.
func (r *rotating) renew(i int) {
	r.members[i] = issueTrusting(r.t, r.ca, r.members[i].Identity(), month, r.now, r.roots, r.bridge)
}

// end forgets the old CA, if every member has renewed. Who was away is cut off, which is what waiting for
// members that are down is there to prevent.
func (r *rotating) end() {
	if len(r.roots) == 1 {
		return
	}
	for _, m := range r.members {
		if !m.IssuedBy(r.roots[0]) {
			return
		}
	}
	r.roots, r.bridge = r.roots[:1], nil
	r.cutOff = append(r.cutOff, r.away)
	r.away = issue(r.t, r.ca, Identity{"c1", manager, "away"}, month, r.now)
}

// known tells whether two were checked before, and remembers them.
func (r *rotating) known(a, b *Credentials) bool {
	pair := [2]*Credentials{a, b}
	known := r.checked[pair]
	r.checked[pair] = true
	return known
}

// check has every member call every manager, as it shows itself. What was checked before is not again.
func (r *rotating) check() {
	for i, client := range r.members {
		chain := shown(r.t, client)
		for j, server := range r.members[:r.servers] {
			if r.known(client, server) {
				continue
			}
			if who, err := server.Verify(chain, r.now); err != nil || who != client.Identity() {
				r.t.Fatalf("manager %d does not believe member %d: %v", j, i, err)
			}
			if err := client.verifyManager(shown(r.t, server), r.now); err != nil {
				r.t.Fatalf("member %d does not believe manager %d: %v", i, j, err)
			}
			if got := server.Issuer(chain[0], chain[1:]...); got == "" {
				r.t.Fatalf("manager %d does not know who issued member %d's certificate", j, i)
			}
			if i == j {
				r.checkTokens(j, server)
			}
		}
	}
	// Old members are strangers to those who have forgotten the old CA, and these to them.
	for _, old := range r.cutOff {
		for i, m := range r.members {
			if len(m.Roots()) > 1 || r.known(old, m) {
				continue
			}
			if _, err := m.Verify(shown(r.t, old), r.now); err == nil {
				r.t.Fatalf("member %d believes in a CA that was replaced", i)
			}
			if err := old.verifyManager(shown(r.t, m), r.now); err == nil {
				r.t.Fatalf("a member that was away believes member %d", i)
			}
		}
	}
}

// checkTokens has machines join by a manager, whose tokens name each of the CAs that it trusts. Only one
// that names a CA newer than the manager's certificate has to wait until it has renewed.
func (r *rotating) checkTokens(j int, server *Credentials) {
	for k, ca := range server.Roots() {
		err := verifyPinned(shown(r.t, server), Digest(ca), r.now)
		if must := k > 0 || server.Current(); (err == nil) != must {
			r.t.Fatalf("a token that names CA %d of manager %d: %v", k, j, err)
		}
	}
	for _, old := range r.cutOff {
		if err := verifyPinned(shown(r.t, server), Digest(old.Roots()[0]), r.now); err == nil && len(server.Roots()) == 1 {
			r.t.Fatalf("by a token of a CA that was replaced a machine joins manager %d", j)
		}
	}
}

// TestMembersTalkThroughEveryReplacementOfTheCAInWhateverOrderTheyHearOfIt is the promise of no downtime.
func TestMembersTalkThroughEveryReplacementOfTheCAInWhateverOrderTheyHearOfIt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Now()
		ca := newTestCA(rt, "c1", now)
		r := &rotating{checked: map[[2]*Credentials]bool{}, t: rt, now: now, ca: ca, roots: [][]byte{ca.Certificate.Raw}, servers: rapid.IntRange(1, 2).Draw(rt, "managers")}
		agents := rapid.IntRange(0, 1).Draw(rt, "agents")
		for i := range r.servers + agents {
			role := manager
			if i >= r.servers {
				role = agent
			}
			r.members = append(r.members, issue(rt, ca, Identity{"c1", role, fmt.Sprint("m", i)}, month, now))
		}
		r.away = issue(rt, ca, Identity{"c1", manager, "away"}, month, now)
		who := func() int { return rapid.IntRange(0, len(r.members)-1).Draw(rt, "member") }
		rt.Repeat(map[string]func(*rapid.T){
			"begin": func(*rapid.T) { r.begin() },
			"learn": func(*rapid.T) { r.learn(who()) },
			"renew": func(*rapid.T) { r.renew(who()) },
			"all renew": func(*rapid.T) {
				for i := range r.members {
					r.renew(i)
				}
			},
			"end": func(*rapid.T) { r.end() },
			"join": func(*rapid.T) {
				if len(r.members) < 3 {
					r.members = append(r.members, issueTrusting(rt, r.ca, Identity{"c1", agent, fmt.Sprint("j", len(r.members))}, month, now, r.roots, r.bridge))
				}
			},
			"": func(*rapid.T) { r.check() },
		})
	})
}

func TestAMachineJoinsByATokenOfTheOldCAWhileItIsTrusted(t *testing.T) {
	now := time.Now()
	old, next, roots, bridge := replacing(t, now)
	renewed := NewHolder(issueTrusting(t, next, Identity{"c1", manager, "m1"}, month, now, roots, bridge))
	for what, ca := range map[string]*CA{"old": old, "new": next} {
		if _, serverErr, clientErr := handshake(t, renewed.ServerConfig(), PinnedConfig(Digest(ca.Certificate))); serverErr != nil || clientErr != nil {
			t.Errorf("a token of the %s CA: %v, %v", what, serverErr, clientErr)
		}
	}
	ended, err := renewed.Get().Trusting(roots[:1], nil)
	if err != nil {
		t.Fatal(err)
	}
	renewed.Set(ended)
	if _, _, err := handshake(t, renewed.ServerConfig(), PinnedConfig(Digest(next.Certificate))); err != nil {
		t.Error(err)
	}
	_, _, err = handshake(t, renewed.ServerConfig(), PinnedConfig(Digest(old.Certificate)))
	says(t, err, ErrPinned, "from before the cluster's CA was replaced", "warrenctl cluster join-token")
}

// TestTheIssuerOfACertificateIsKnownAcrossTheBridge: a manager that has not heard of the replacement tells the
// state who has renewed all the same.
func TestTheIssuerOfACertificateIsKnownAcrossTheBridge(t *testing.T) {
	now := time.Now()
	old, next, roots, bridge := replacing(t, now)
	behind := issue(t, old, Identity{"c1", manager, "m1"}, month, now)
	chain := shown(t, issueTrusting(t, next, Identity{"c1", agent, "a1"}, month, now, roots, bridge))
	if got := behind.Issuer(chain[0], chain[1:]...); got != Digest(next.Certificate) {
		t.Errorf("issuer %q, not %q", got, Digest(next.Certificate))
	}
	// The bridge has the new CA's key, but its digest is nobody's.
	if got := behind.Issuer(chain[0], chain[2]); got != "" {
		t.Errorf("issuer %q", got)
	}
}

func TestABridgeLeadsToNoFurtherCA(t *testing.T) {
	now := time.Now()
	old, next, roots, bridge := replacing(t, now)
	third, second, err := next.Successor(now)
	if err != nil {
		t.Fatal(err)
	}
	behind := issue(t, old, Identity{"c1", manager, "m1"}, month, now)
	chain := shown(t, issueTrusting(t, third, Identity{"c1", agent, "a1"}, month, now, [][]byte{third.Certificate.Raw, next.Certificate.Raw}, second))
	chain = append(chain[:1], append(shown(t, issueTrusting(t, next, Identity{"c1", agent, "a2"}, month, now, roots, bridge))[2:3], chain[2])...)
	_, err = behind.Verify(chain, now)
	says(t, err, ErrForeign)
}
