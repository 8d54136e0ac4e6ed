package caller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	agent   = warrenv1.Role_ROLE_AGENT
	manager = warrenv1.Role_ROLE_MANAGER
	admin   = warrenv1.Role_ROLE_ADMIN
	nobody  = warrenv1.Role_ROLE_ANONYMOUS
)

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func credentials(t *testing.T, ca *pki.CA, role warrenv1.Role, name string, life time.Duration, roots ...[]byte) *pki.Credentials {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(&key.PublicKey, pki.Identity{Cluster: "c1", Role: role, Name: name}, life, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.New(key, der, append([][]byte{ca.Certificate.Raw}, roots...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// server answers every call on TLS and keeps who made the last one.
type server struct {
	*httptest.Server
	holder *pki.Holder
	seen   Caller
}

func serve(t *testing.T, mine *pki.Credentials) *server {
	t.Helper()
	s := &server{holder: pki.NewHolder(mine)}
	s.Server = httptest.NewUnstartedServer(Identify(s.holder, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { s.seen = From(r.Context()) })))
	s.Config.ConnContext, s.Config.ErrorLog = Connected, nil
	s.TLS = s.holder.ServerConfig()
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// client returns a client that shows credentials, and believes anybody.
func client(t *testing.T, c *pki.Credentials) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if c != nil {
		config.GetClientCertificate = pki.NewHolder(c).ClientConfig().GetClientCertificate
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// call makes a call and returns who the server takes its caller for.
func (s *server) call(t *testing.T, c *http.Client, edits ...func(http.Header)) Caller {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		edit(req.Header)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return s.seen
}

func TestACallersCertificateSaysWhoItIs(t *testing.T) {
	ca := newCA(t)
	s := serve(t, credentials(t, ca, manager, "m1", time.Hour))
	mine := credentials(t, ca, agent, "a1", time.Hour)
	got := s.call(t, client(t, mine))
	if got.Role != agent || got.Name != "a1" || got.Local || got.Addr == "" || got.Via != "" || got.Refused != nil ||
		got.Issuer != pki.Digest(ca.Certificate) || !got.Expires.Equal(mine.NotAfter()) || string(got.Key) != string(pki.KeyDigest(mine.Certificate())) {
		t.Errorf("seen as %+v", got)
	}
	if got.String() != "agent a1" {
		t.Errorf("called %q", got)
	}
}

func TestWhoeverShowsNothingOrNothingGoodIsNobody(t *testing.T) {
	ca := newCA(t)
	s := serve(t, credentials(t, ca, manager, "m1", time.Hour))
	for _, c := range []struct {
		name  string
		shows *pki.Credentials
		why   error
	}{
		{"nothing", nil, nil},
		{"a foreign CA's", credentials(t, newCA(t), admin, "root", time.Hour), pki.ErrForeign},
		{"an expired one", credentials(t, ca, admin, "root", -time.Minute), pki.ErrExpired},
	} {
		got := s.call(t, client(t, c.shows))
		if got.Role != nobody || got.Name != "" || !errors.Is(got.Refused, c.why) || (c.why == nil) != (got.Refused == nil) {
			t.Errorf("who shows %s is %+v", c.name, got)
		}
	}
}

// TestAConnectionDoesNotOutliveTheTrustInItsCertificate: the CA is replaced, for somebody had its key, while a
// connection is open.
func TestAConnectionDoesNotOutliveTheTrustInItsCertificate(t *testing.T) {
	old, next := newCA(t), newCA(t)
	s := serve(t, credentials(t, next, manager, "m1", time.Hour, old.Certificate.Raw))
	c := client(t, credentials(t, old, agent, "a1", time.Hour))
	if got := s.call(t, c); got.Name != "a1" || got.Issuer != pki.Digest(old.Certificate) {
		t.Fatalf("seen as %+v", got)
	}
	s.holder.Set(credentials(t, next, manager, "m1", time.Hour))
	if got := s.call(t, c); got.Role != nobody || !errors.Is(got.Refused, pki.ErrForeign) {
		t.Errorf("seen as %+v", got)
	}
	// And the other way round: it is not refused for ever.
	s.holder.Set(credentials(t, next, manager, "m1", time.Hour, old.Certificate.Raw))
	if got := s.call(t, c); got.Name != "a1" {
		t.Errorf("seen as %+v", got)
	}
}

func TestAConnectionIsNobodysOnceItsCertificateHasExpired(t *testing.T) {
	ca := newCA(t)
	mine := credentials(t, ca, manager, "m1", time.Hour)
	shown := credentials(t, ca, agent, "a1", time.Minute)
	near, far := net.Pipe()
	defer near.Close()
	c := &connection{conn: far}
	state := &tls.ConnectionState{PeerCertificates: append([]*x509.Certificate{shown.Certificate()}, shown.Roots()...)}
	now := time.Now()
	if got := c.identify(mine, state, now); got.Name != "a1" {
		t.Fatalf("seen as %+v", got)
	}
	got := c.identify(mine, state, now.Add(time.Hour))
	if got.Role != nobody || !errors.Is(got.Refused, pki.ErrExpired) {
		t.Errorf("an hour later: %+v", got)
	}
	// The clock was wrong, and was set.
	if got := c.identify(mine, state, now); got.Name != "a1" {
		t.Errorf("back again: %+v", got)
	}
}

func TestACertificateThatWasTooEarlyIsGoodWhenItsTimeHasCome(t *testing.T) {
	ca := newCA(t)
	mine, shown := credentials(t, ca, manager, "m1", 24*time.Hour), credentials(t, ca, agent, "a1", 24*time.Hour)
	near, far := net.Pipe()
	defer near.Close()
	c := &connection{conn: far}
	state := &tls.ConnectionState{PeerCertificates: append([]*x509.Certificate{shown.Certificate()}, shown.Roots()...)}
	now := time.Now()
	if got := c.identify(mine, state, now.Add(-2*time.Hour)); !errors.Is(got.Refused, pki.ErrNotYetValid) {
		t.Errorf("seen as %+v", got)
	}
	if got := c.identify(mine, state, now); got.Name != "a1" {
		t.Errorf("seen as %+v", got)
	}
}

func TestAManagerSpeaksForOthersAndNobodyElseDoes(t *testing.T) {
	ca := newCA(t)
	s := serve(t, credentials(t, ca, manager, "m1", time.Hour))
	root := Caller{Role: admin, Name: "root", Local: true}
	claim := func(h http.Header) { PassOn(h, root) }
	if got := s.call(t, client(t, credentials(t, ca, manager, "m2", time.Hour)), claim); got.Role != admin || !got.Local || got.Via != "m2" {
		t.Errorf("a manager's caller is %+v", got)
	}
	for _, c := range []struct {
		shows *pki.Credentials
		role  warrenv1.Role
	}{
		{nil, nobody},
		{credentials(t, ca, agent, "a1", time.Hour), agent},
		{credentials(t, ca, admin, "ann", time.Hour), admin},
		{credentials(t, ca, manager, "m2", -time.Minute), nobody},
		{credentials(t, newCA(t), manager, "m2", time.Hour), nobody},
	} {
		if got := s.call(t, client(t, c.shows), claim); got.Role != c.role || got.Local || got.Via != "" || got.Name == "root" {
			t.Errorf("a %s that claims to be root is %+v", pki.RoleName(c.role), got)
		}
	}
}

func TestWhatIsPassedOnReplacesWhatACallerClaims(t *testing.T) {
	h := http.Header{}
	h.Add("Warren-Caller", "claimed")
	h.Add("warren-caller", "claimed again")
	PassOn(h, Caller{Role: agent, Name: "a1"})
	if got := h.Values(header); len(got) != 1 {
		t.Errorf("the header is %v", got)
	}
	if got, ok := passedOn(h, "m2"); !ok || got.Name != "a1" || got.Role != agent {
		t.Errorf("passed on as %+v", got)
	}
}

func TestACallerArrivesAsItWasPassedOn(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sent := Caller{
			Role: rapid.SampledFrom([]warrenv1.Role{agent, manager, admin, warrenv1.Role_ROLE_VIEWER, warrenv1.Role_ROLE_OPERATOR}).Draw(rt, "role"),
			Name: rapid.StringN(1, 60, 200).Draw(rt, "name"), Local: rapid.Bool().Draw(rt, "local"), Addr: rapid.StringN(0, 50, 200).Draw(rt, "addr"),
			Key: rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(rt, "key"), Issuer: rapid.StringN(0, 52, 200).Draw(rt, "issuer"),
			Expires: time.Unix(rapid.Int64Range(0, 1e10).Draw(rt, "expires"), 0).UTC(),
		}
		h := http.Header{}
		PassOn(h, sent)
		got, ok := passedOn(h, "m2")
		sent.Via = "m2"
		if !ok || got.Role != sent.Role || got.Name != sent.Name || got.Local != sent.Local || got.Addr != sent.Addr ||
			string(got.Key) != string(sent.Key) || got.Issuer != sent.Issuer || !got.Expires.Equal(sent.Expires) || got.Via != sent.Via {
			rt.Fatalf("sent %+v, got %+v", sent, got)
		}
	})
}

func TestNobodyIsPassedOnWithWhyItIsNobody(t *testing.T) {
	for _, why := range []error{nil, pki.ErrExpired, pki.ErrNotYetValid, pki.ErrForeign, pki.ErrPinned, pki.ErrNone, errors.New("strange"), errors.New(strings.Repeat("x", 1<<20))} {
		h := http.Header{}
		PassOn(h, Caller{Role: nobody, Refused: why, Addr: "10.0.0.1:5"})
		got, ok := passedOn(h, "m2")
		if !ok || got.Role != nobody || got.Addr != "10.0.0.1:5" || (got.Refused == nil) != (why == nil) {
			t.Errorf("%v: passed on as %+v", why, got)
			continue
		}
		if why == nil {
			continue
		}
		if len(why.Error()) < maxReason && got.Refused.Error() != why.Error() {
			t.Errorf("%v: it says %q", why, got.Refused)
		}
		for _, kind := range kinds {
			if errors.Is(why, kind) != errors.Is(got.Refused, kind) {
				t.Errorf("%v: kind %v is lost or made up", why, kind)
			}
		}
	}
}

func TestWhatIsNotUnderstoodIsNobody(t *testing.T) {
	text := func(v any) string {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	for name, value := range map[string]string{
		"no base64": "{}", "no JSON": base64.StdEncoding.EncodeToString([]byte("{")), "no role": text(passed{Name: "a"}),
		"no such role": text(passed{Role: "god", Name: "a"}), "no name": text(passed{Role: "admin", Local: true}),
		"too long": text(passed{Role: "admin", Name: strings.Repeat("a", maxHeader)}),
	} {
		if got, ok := passedOn(http.Header{header: {value}}, "m2"); !ok || got.Role != nobody || got.Local || got.Via != "m2" {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	if got, ok := passedOn(http.Header{}, "m2"); ok {
		t.Errorf("nothing is passed on as %+v", got)
	}
}

func FuzzPassedOn(f *testing.F) {
	h := http.Header{}
	PassOn(h, Caller{Role: admin, Name: "root", Local: true, Key: []byte{1}, Expires: time.Unix(1e9, 0)})
	f.Add(h.Get(header))
	PassOn(h, Caller{Role: nobody, Refused: pki.ErrExpired})
	f.Add(h.Get(header))
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := passedOn(http.Header{header: {value}}, "m2")
		if ok == (value == "") || ok && got.Via != "m2" {
			t.Errorf("%q: %+v, %v", value, got, ok)
		}
		if ok && got.Role != nobody && (pki.RoleName(got.Role) == "" || got.Name == "") {
			t.Errorf("%q is somebody without a role or a name: %+v", value, got)
		}
	})
}

func TestAProgramOfThisUserOnTheUnixSocketIsAnAdministrator(t *testing.T) {
	dir, err := os.MkdirTemp("", "caller") //nolint:usetesting // short: a socket's path has a hundred characters at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan Caller, 1)
	s := &http.Server{ConnContext: Connected, Handler: Identify(pki.NewHolder(nil), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen <- From(r.Context())
	}))}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "s"))
	}}}
	t.Cleanup(c.CloseIdleConnections)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://manager", nil)
		if err != nil {
			t.Fatal(err)
		}
		PassOn(req.Header, Caller{Role: manager, Name: "m2"}) // from here it means nothing
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if got := <-seen; got.Role != admin || !got.Local || got.Name == "" || got.Via != "" || !strings.HasSuffix(got.String(), "on the unix socket") {
			t.Errorf("seen as %+v", got)
		}
	}
}

func TestACallThatNobodyHasIdentifiedIsNobodys(t *testing.T) {
	if got := From(t.Context()); got.Role != nobody {
		t.Errorf("%+v", got)
	}
	if got := identify(pki.NewHolder(nil), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)); got.Role != nobody {
		t.Errorf("%+v", got)
	}
}
