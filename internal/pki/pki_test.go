package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	agent   = warrenv1.Role_ROLE_AGENT
	manager = warrenv1.Role_ROLE_MANAGER
	viewer  = warrenv1.Role_ROLE_VIEWER

	month = 30 * 24 * time.Hour
)

// tester is a test or a property.
type tester interface {
	Helper()
	Fatal(args ...any)
}

func newTestCA(t tester, cluster string, now time.Time) *CA {
	t.Helper()
	ca, err := NewCA(cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newTestKey(t tester) *ecdsa.PrivateKey {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue has a CA make credentials that trust it alone.
func issue(t tester, ca *CA, who Identity, life time.Duration, now time.Time, hosts ...string) *Credentials {
	t.Helper()
	return issueTrusting(t, ca, who, life, now, [][]byte{ca.Certificate.Raw}, nil, hosts...)
}

func issueTrusting(t tester, ca *CA, who Identity, life time.Duration, now time.Time, roots [][]byte, bridge []byte, hosts ...string) *Credentials {
	t.Helper()
	key := newTestKey(t)
	der, err := ca.Issue(&key.PublicKey, who, life, now, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(key, der, roots, bridge)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shown is the chain that others see of credentials.
func shown(t tester, c *Credentials) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range c.tls.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	return chain
}

// says checks that an error is a refusal of that kind and tells the user all of that.
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

// handshake connects two ends over TLS and returns what each of them says of it.
func handshake(t testing.TB, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	s, c := tls.Server(far, server), tls.Client(near, client)
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1}) // the client hears no refusal before it reads, nor a ticket
		}
		done <- err
	}()
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	near.Close()
	serverErr = <-done
	return s.ConnectionState(), serverErr, clientErr
}

func TestMembersOfOneClusterKnowEachOther(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	m := issue(t, ca, Identity{"c1", manager, "m1"}, month, now)
	a := issue(t, ca, Identity{"c1", agent, "a1"}, month, now)
	seen, serverErr, clientErr := handshake(t, NewHolder(m).ServerConfig(), NewHolder(a).ClientConfig())
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	who, err := m.Verify(seen.PeerCertificates, now)
	if err != nil || who != a.Identity() {
		t.Errorf("the manager sees %v, %v", who, err)
	}
	if got := m.Issuer(seen.PeerCertificates[0]); got != Digest(ca.Certificate) {
		t.Errorf("issuer %q", got)
	}
	if seen.Version != tls.VersionTLS13 {
		t.Errorf("TLS version %x", seen.Version)
	}
}

func TestNothingBelowTLS13IsSpoken(t *testing.T) {
	now := time.Now()
	m := NewHolder(issue(t, newTestCA(t, "c1", now), Identity{"c1", manager, "m1"}, month, now))
	old := &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	if _, serverErr, _ := handshake(t, m.ServerConfig(), old); serverErr == nil {
		t.Error("a server speaks TLS 1.2")
	}
	server := m.ServerConfig()
	server.MinVersion, server.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, client := range []*tls.Config{m.ClientConfig(), PinnedConfig("")} {
		if _, _, clientErr := handshake(t, server, client); clientErr == nil {
			t.Error("a client speaks TLS 1.2")
		}
	}
}

// TestNoConnectionIsResumed: a resumed connection would be made with the certificate that the first was made
// with, whatever its holder has now.
func TestNoConnectionIsResumed(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	m := NewHolder(issue(t, ca, Identity{"c1", manager, "m1"}, month, now))
	client := NewHolder(issue(t, ca, Identity{"c1", agent, "a1"}, month, now)).ClientConfig()
	client.ClientSessionCache, client.ServerName = tls.NewLRUClientSessionCache(1), "m1"
	for range 2 {
		seen, serverErr, clientErr := handshake(t, m.ServerConfig(), client)
		if serverErr != nil || clientErr != nil || seen.DidResume {
			t.Errorf("resumed: %v, %v, %v", seen.DidResume, serverErr, clientErr)
		}
	}
}

func TestAHolderUsesWhatItWasGivenLast(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	h := NewHolder(nil)
	server := h.ServerConfig()
	joiner := PinnedConfig(Digest(ca.Certificate))
	if _, serverErr, _ := handshake(t, server, joiner); !errors.Is(serverErr, ErrNone) {
		t.Errorf("without credentials: %v", serverErr)
	}
	if _, _, clientErr := handshake(t, server, h.ClientConfig()); clientErr == nil {
		t.Error("a client without credentials has connected")
	}
	h.Set(issue(t, ca, Identity{"c1", manager, "m1"}, month, now))
	if _, serverErr, clientErr := handshake(t, server, joiner); serverErr != nil || clientErr != nil {
		t.Error(serverErr, clientErr)
	}
}

func TestWhoeverIsNotAMemberIsRefusedAndToldWhy(t *testing.T) {
	now := time.Now()
	ca, other := newTestCA(t, "c1", now), newTestCA(t, "c1", now)
	m := issue(t, ca, Identity{"c1", manager, "m1"}, month, now)
	for _, c := range []struct {
		name  string
		shows *Credentials
		kind  error
		words []string
	}{
		{"foreign CA of the same name", issue(t, other, Identity{"c1", agent, "a1"}, month, now), ErrForeign, nil},
		{"another cluster's, by the same key", issue(t, ca, Identity{"c2", agent, "a1"}, month, now), ErrForeign, []string{"cluster c2"}},
		{"expired", issue(t, ca, Identity{"c1", agent, "a1"}, time.Minute, now.Add(-time.Hour)), ErrExpired, []string{"and it is"}},
		{"not yet valid", issue(t, ca, Identity{"c1", agent, "a1"}, month, now.Add(2*time.Hour)), ErrNotYetValid, []string{"set the clocks (NTP)"}},
		// It stays foreign when it has expired, and nobody learns from a refusal more than that.
		{"expired and foreign", issue(t, other, Identity{"c1", agent, "a1"}, time.Minute, now.Add(-time.Hour)), ErrForeign, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := m.Verify(shown(t, c.shows), now)
			says(t, err, c.kind, c.words...)
		})
	}
	_, err := m.Verify(nil, now)
	says(t, err, ErrForeign)
	_, err = m.Verify([]*x509.Certificate{ca.Certificate}, now)
	says(t, err, ErrForeign)
}

func TestTheClocksOfMembersMayDifferByAnHourAndNoMore(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	m := issue(t, ca, Identity{"c1", manager, "m1"}, month, now)
	fresh := shown(t, issue(t, ca, Identity{"c1", agent, "a1"}, month, now))
	if _, err := m.Verify(fresh, now.Add(-59*time.Minute)); err != nil {
		t.Error(err)
	}
	_, err := m.Verify(fresh, now.Add(-61*time.Minute))
	says(t, err, ErrNotYetValid, "set the clocks")
}

func TestWhoeverAnswersMustBeAManagerOfTheCluster(t *testing.T) {
	now := time.Now()
	ca, other := newTestCA(t, "c1", now), newTestCA(t, "c2", now)
	me := NewHolder(issue(t, ca, Identity{"c1", agent, "a1"}, month, now))
	for _, c := range []struct {
		name    string
		answers *Credentials
		words   []string
	}{
		{"an agent", issue(t, ca, Identity{"c1", agent, "a2"}, month, now), []string{"not a manager but agent a2", "check the address"}},
		{"a manager of another cluster", issue(t, other, Identity{"c2", manager, "m1"}, month, now), []string{"not a manager of this cluster", "check the address"}},
		{"a manager whose certificate has expired", issue(t, ca, Identity{"c1", manager, "m1"}, time.Minute, now.Add(-time.Hour)), []string{"has expired", "set this machine's clock"}},
		{"a manager of tomorrow", issue(t, ca, Identity{"c1", manager, "m1"}, month, now.Add(24*time.Hour)), []string{"not valid yet", "set the clocks"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for what, client := range map[string]*tls.Config{"member": me.ClientConfig(), "joiner": PinnedConfig(Digest(ca.Certificate))} {
				_, _, err := handshake(t, NewHolder(c.answers).ServerConfig(), client)
				if err == nil {
					t.Errorf("%s: connected", what)
					continue
				}
				for _, w := range c.words {
					if what == "joiner" && strings.Contains(c.name, "another cluster") {
						w = "the join token is of another cluster"
					}
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%s: %q does not say %q", what, err, w)
					}
				}
			}
		})
	}
}

// TestACertificateOfAMemberCannotIssue: an agent's certificate put in the place of a CA's, as somebody does
// who has stolen one.
func TestACertificateOfAMemberCannotIssue(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	m := issue(t, ca, Identity{"c1", manager, "m1"}, month, now)
	stolen := issue(t, ca, Identity{"c1", agent, "a1"}, month, now)
	forger := &CA{Certificate: stolen.Certificate(), key: stolen.Key()}
	key := newTestKey(t)
	forged, err := forger.Issue(&key.PublicKey, Identity{"c1", manager, "m2"}, month, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(forged)
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{leaf, stolen.Certificate(), ca.Certificate}
	_, err = m.Verify(chain, now)
	says(t, err, ErrForeign)
	if err := verifyPinned(chain, Digest(ca.Certificate), now); err == nil {
		t.Error("a joiner believes it")
	}
	// Nor is it believed where somebody names it in the place of a CA.
	if err := verifyPinned(chain, Digest(stolen.Certificate()), now); err == nil {
		t.Error("a joiner believes one whose token names it")
	}
	if _, err := New(key, forged, [][]byte{stolen.Certificate().Raw}, nil); err == nil {
		t.Error("a member's certificate is trusted as a CA")
	}
}

func TestOnlyManagersMayServe(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	for role, want := range map[warrenv1.Role]bool{agent: false, viewer: false, manager: true} {
		c := issue(t, ca, Identity{"c1", role, "x"}, month, now, "localhost", "127.0.0.1", "not a name", "fe80::1%eth0", strings.Repeat("a", 300), "ü")
		_, err := c.Certificate().Verify(x509.VerifyOptions{Roots: c.pool, DNSName: "localhost"})
		if got := err == nil; got != want {
			t.Errorf("%s: a program that knows the CA alone takes it for a server: %v (%v)", RoleName(role), got, err)
		}
		if len(c.Certificate().DNSNames) != 1 || len(c.Certificate().IPAddresses) != 1 {
			t.Errorf("names %v %v", c.Certificate().DNSNames, c.Certificate().IPAddresses)
		}
	}
}

func TestNoCertificateOutlivesItsCA(t *testing.T) {
	made := time.Now()
	ca := newTestCA(t, "c1", made)
	late := made.Add(caLife - time.Hour)
	c := issue(t, ca, Identity{"c1", agent, "a1"}, month, late)
	if !c.NotAfter().Equal(ca.Certificate.NotAfter) {
		t.Errorf("it is good until %v, its CA until %v", c.NotAfter(), ca.Certificate.NotAfter)
	}
	if _, err := c.Verify(shown(t, c), late); err != nil {
		t.Error(err)
	}
	if at := c.RenewAt(); at.After(c.NotAfter()) {
		t.Errorf("renewed at %v", at)
	}
}

func TestNobodyIsIssuedACertificateThatSaysNothing(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	key := newTestKey(t)
	for _, who := range []Identity{{}, {"", agent, "a"}, {"c1", agent, ""}, {"c1", warrenv1.Role_ROLE_ANONYMOUS, "a"}, {"c1", 99, "a"}} {
		if _, err := ca.Issue(&key.PublicKey, who, month, now); err == nil {
			t.Errorf("issued to %+v", who)
		}
	}
}

func TestRolesAreReadAsTheyAreWritten(t *testing.T) {
	for role, name := range roleNames {
		if got, err := ParseRole(name); err != nil || got != role {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := ParseRole("worker"); err != nil || got != agent {
		t.Errorf("worker: %v, %v", got, err)
	}
	for _, wrong := range []string{"", "Agent", "root", "agent,admin", "anonymous"} {
		if _, err := ParseRole(wrong); err == nil {
			t.Errorf("%q is a role", wrong)
		}
	}
}

func TestACertificateWithMoreThanOneMeaningHasNone(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	for name, edit := range map[string]func(*x509.Certificate){
		"two roles":            func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"agent", "admin"} },
		"two clusters":         func(c *x509.Certificate) { c.Subject.Organization = []string{"c1", "c2"} },
		"no name":              func(c *x509.Certificate) { c.Subject.CommonName = "" },
		"no cluster":           func(c *x509.Certificate) { c.Subject.Organization = []string{""} },
		"a word of people's":   func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"worker"} },
		"a role that is none":  func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"root"} },
		"no role":              func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil },
		"the CA's certificate": func(c *x509.Certificate) { c.Subject = ca.Certificate.Subject },
	} {
		cert := *issue(t, ca, Identity{"c1", agent, "a1"}, month, now).Certificate()
		edit(&cert)
		if who, err := IdentityOf(&cert); err == nil {
			t.Errorf("%s: %+v", name, who)
		}
	}
}
