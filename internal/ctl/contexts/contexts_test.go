package contexts

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// year is how long the certificates of these tests are good.
const year = 365 * 24 * time.Hour

// authority is a CA that issues to users and managers.
type authority struct {
	t  *testing.T
	ca *pki.CA
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca, err := pki.NewCA("c1", time.Now().Add(-2*365*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, ca}
}

// user returns the context of a user whose certificate was issued at a time.
func (a *authority) user(issued time.Time) *Context {
	a.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := a.ca.Issue(&key.PublicKey, pki.Identity{Cluster: "c1", Role: warrenv1.Role_ROLE_VIEWER, Name: "vera"}, year, issued)
	if err != nil {
		a.t.Fatal(err)
	}
	credentials, err := pki.New(key, certificate, [][]byte{a.ca.Certificate.Raw}, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return &Context{ClusterName: "shop", Managers: []string{"10.0.0.1:7420", "[fd00::1]:7420"}, Credentials: credentials}
}

// manager returns what a manager shows.
func (a *authority) manager() *x509.Certificate {
	a.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := a.ca.Issue(&key.PublicKey, pki.Identity{Cluster: "c1", Role: warrenv1.Role_ROLE_MANAGER, Name: "m1"}, year, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate
}

func store(t *testing.T) *Store { return &Store{filepath.Join(t.TempDir(), "warren")} }

func TestAContextIsReadBackAsItWasWritten(t *testing.T) {
	c := newAuthority(t).user(time.Now())
	c.RenewAfter = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	text, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got.ClusterName != "shop" || !slices.Equal(got.Managers, c.Managers) || got.Identity() != c.Identity() ||
		!got.Credentials.Key().Equal(c.Credentials.Key()) || !got.RenewAfter.Equal(c.RenewAfter) || !got.RefreshAfter.IsZero() {
		t.Errorf("got %+v", got)
	}
}

func TestWhatIsNoContextIsRefusedWithTheReason(t *testing.T) {
	good, err := newAuthority(t).user(time.Now()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, words string }{
		"nothing":                {"", "no context file"},
		"no YAML":                {"\tx: [", "no context file"},
		"another version":        {strings.Replace(string(good), "context: v1", "context: v9", 1), "another version"},
		"no managers":            {strings.Replace(string(good), "  - 10.0.0.1:7420\n  - '[fd00::1]:7420'\n", "", 1), "names no managers"},
		"a manager with no port": {strings.Replace(string(good), "10.0.0.1:7420", "10.0.0.1", 1), "not HOST:PORT"},
		"no key":                 {strings.ReplaceAll(string(good), "PRIVATE KEY", "PUBLIC KEY"), "its credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.text == string(good) {
				t.Fatal("nothing was changed")
			}
			if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := Read(strings.NewReader(strings.Repeat("x", maxBytes+1))); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too long: %v", err)
	}
}

func TestAMachinesCertificateIsNoContext(t *testing.T) {
	a := newAuthority(t)
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.ca.Issue(&key.PublicKey, pki.Identity{Cluster: "c1", Role: warrenv1.Role_ROLE_AGENT, Name: "n1"}, year, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := pki.New(key, der, [][]byte{a.ca.Certificate.Raw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := (&Context{Managers: []string{"h:1"}, Credentials: credentials}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), "agent n1, not of a user") {
		t.Errorf("got %v", err)
	}
}

func TestAFileIsItsOwnersAloneAndIsNotReplacedUnasked(t *testing.T) {
	c, path := newAuthority(t).user(time.Now()), filepath.Join(t.TempDir(), "c.yaml")
	for range 2 { // also over a file that was open to others
		if err := WriteFile(path, c, true); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", info.Mode(), err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(path, c, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if runtime.GOOS != "windows" {
		if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a file that others can read: %v", err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFileThatAppearsMeanwhileIsNotReplaced(t *testing.T) {
	c, path := newAuthority(t).user(time.Now()), filepath.Join(t.TempDir(), "c.yaml")
	draft, err := NewDraft(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := draft.Commit(c); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("it holds %q, %v", text, err)
	}
}

func TestTheCurrentContextIsLocalUntilOneIsChosen(t *testing.T) {
	s, c := store(t), newAuthority(t).user(time.Now())
	current := func(want string) {
		t.Helper()
		if got, err := s.Current(); got != want || err != nil {
			t.Errorf("current is %q, %v, want %q", got, err, want)
		}
	}
	current(Local)
	if names, err := s.Names(); len(names) != 0 || err != nil {
		t.Errorf("got %v, %v", names, err)
	}
	for _, name := range []string{"b", "a"} {
		if err := s.Add(name, c, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.folder(), "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Names(); !slices.Equal(names, []string{"a", "b"}) || err != nil {
		t.Errorf("got %v, %v", names, err)
	}
	if err := s.Use("a"); err != nil {
		t.Fatal(err)
	}
	current("a")
	if err := s.Use("nope"); err == nil {
		t.Error("a context that is not there is used")
	}
	current("a")
	for _, local := range []string{"local", "-", "default", "local"} {
		if err := s.Use(local); err != nil {
			t.Errorf("%s: %v", local, err)
		}
		current(Local)
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/b", `a\b`, "local", "default", "-", "x y", strings.Repeat("x", 64)} {
		if err := s.Add(bad, c, true); err == nil {
			t.Errorf("a context can be called %q", bad)
		}
	}
}

// cluster is what a Keeper asks.
type cluster struct {
	*authority
	mu       sync.Mutex
	calls    []string
	err      error
	managers []string
}

func (m *cluster) Renew(_ context.Context, req *connect.Request[warrenv1.RenewRequest]) (*connect.Response[warrenv1.RenewResponse], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "renew")
	if m.err != nil {
		return nil, m.err
	}
	public, err := pki.Check(req.Msg.GetCertificate(), time.Now())
	if err != nil {
		return nil, err
	}
	certificate, err := m.ca.Issue(public, pki.Identity{Cluster: "c1", Role: warrenv1.Role_ROLE_VIEWER, Name: "vera"}, year, time.Now())
	return connect.NewResponse(&warrenv1.RenewResponse{Certificate: certificate, Roots: [][]byte{m.ca.Certificate.Raw}, Managers: m.managers}), err
}

func (m *cluster) GetCluster(context.Context, *connect.Request[warrenv1.GetClusterRequest]) (*connect.Response[warrenv1.GetClusterResponse], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "get")
	res := &warrenv1.GetClusterResponse{Cluster: &warrenv1.Cluster{Spec: &warrenv1.ClusterSpec{Name: "renamed"}}}
	for _, addr := range m.managers {
		res.Managers = append(res.Managers, &warrenv1.Manager{Addr: addr})
	}
	return connect.NewResponse(res), m.err
}

func TestAContextIsKeptFresh(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	const day = 24 * time.Hour
	for _, c := range []struct {
		name    string
		age     time.Duration // of the certificate
		edit    func(*Context)
		shown   *x509.Certificate
		fails   error
		calls   []string
		warning string
	}{
		{name: "young and fresh", edit: func(c *Context) { c.RefreshAfter = time.Now().Add(time.Hour) }},
		{name: "young, addresses a day old", calls: []string{"get"}},
		{name: "past two thirds", age: year * 7 / 10, calls: []string{"renew"}},
		{name: "past two thirds and tried lately", age: year * 7 / 10, edit: func(c *Context) { c.RenewAfter = time.Now().Add(time.Minute) }, calls: []string{"get"}},
		{name: "manager with another CA", shown: other.manager(), calls: []string{"renew"}},
		{name: "expired", age: year + time.Hour, calls: []string{"get"}},
		{name: "ends soon, renewed", age: year - 5*day, calls: []string{"renew"}},
		{name: "ends soon, not renewed", age: year - 5*day, fails: connect.NewError(connect.CodeUnavailable, errors.New("no leader")),
			calls: []string{"renew"}, warning: "could not be renewed: no leader"},
		{name: "ends later, not renewed", age: year - 15*day, fails: errors.New("no leader"), calls: []string{"renew"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, one := store(t), a.user(time.Now().Add(-c.age))
			if c.edit != nil {
				c.edit(one)
			}
			if err := s.Add("shop", one, false); err != nil {
				t.Fatal(err)
			}
			managers := &cluster{authority: a, err: c.fails, managers: []string{"10.0.0.9:7420"}}
			shown := c.shown
			if shown == nil {
				shown = a.manager()
			}
			run := func() string {
				loaded, err := s.Load("shop")
				if err != nil {
					t.Fatal(err)
				}
				k := NewKeeper(s, "shop", loaded, time.Now)
				k.Ask(managers)
				k.Saw(shown)
				k.Saw(shown) // as of a second connection
				return k.Close()
			}
			warning := run()
			if !slices.Equal(managers.calls, c.calls) {
				t.Errorf("asked for %v, want %v", managers.calls, c.calls)
			}
			if (warning == "") != (c.warning == "") || !strings.Contains(warning, c.warning) {
				t.Errorf("warned %q", warning)
			}
			kept, err := s.Load("shop")
			if err != nil {
				t.Fatal(err)
			}
			asked := len(c.calls) > 0 && c.fails == nil
			if renewed := kept.Credentials.NotAfter().After(one.Credentials.NotAfter()); renewed != (asked && c.calls[0] == "renew" && c.age > 0) && c.shown == nil {
				t.Errorf("renewed is %v", renewed)
			}
			if moved := slices.Equal(kept.Managers, managers.managers); moved != asked {
				t.Errorf("the managers are at %v", kept.Managers)
			}
			if !kept.Credentials.Key().Equal(one.Credentials.Key()) {
				t.Error("the key has changed")
			}
			run()
			if len(managers.calls) != len(c.calls) {
				t.Errorf("asked again: %v", managers.calls)
			}
		})
	}
}

func TestAContextThatWasReplacedOrRemovedMeanwhileIsLeftAlone(t *testing.T) {
	a, s := newAuthority(t), store(t)
	old, other := a.user(time.Now().Add(-year*7/10)), a.user(time.Now())
	for name, meanwhile := range map[string]func() error{
		"replaced": func() error { return s.Replace("shop", other) },
		"removed":  func() error { return s.Remove("shop") },
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Add("shop", old, true); err != nil {
				t.Fatal(err)
			}
			managers := &cluster{authority: a}
			k := NewKeeper(s, "shop", old, time.Now)
			k.Ask(managers)
			if err := meanwhile(); err != nil {
				t.Fatal(err)
			}
			k.Saw(a.manager())
			k.Close()
			if len(managers.calls) > 0 {
				t.Errorf("asked for %v", managers.calls)
			}
			if kept, err := s.Load("shop"); name == "removed" && err == nil || name == "replaced" && !kept.Credentials.Key().Equal(other.Credentials.Key()) {
				t.Errorf("now there is %v, %v", kept, err)
			}
		})
	}
}
