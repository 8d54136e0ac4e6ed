package membership

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/id"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestJoiningMakesThisMachineAMemberForGood(t *testing.T) {
	manager, dir := startManager(t, "c1"), t.TempDir()
	m := openIn(t, dir)
	if m.NodeID() != "" || m.Holder().Get() != nil {
		t.Fatal("a fresh machine is a member")
	}
	waited := make(chan error, 1)
	go func() {
		_, err := m.Await(t.Context())
		waited <- err
	}()
	mine, err := m.Join(t.Context(), manager.worker(), []string{manager.addr})
	if err != nil {
		t.Fatal(err)
	}
	if err := next(t, waited, "the end of waiting"); err != nil {
		t.Error(err)
	}
	name, _ := pki.NameOf(&mine.Key().PublicKey)
	if who := mine.Identity(); who.Cluster != "c1" || who.Name != name || who.Role != warrenv1.Role_ROLE_AGENT || len(name) != id.Length || m.NodeID() != name {
		t.Errorf("joined as %+v, node %s", who, m.NodeID())
	}
	if got := m.Addrs(); !slices.Equal(got, []string{"advertised:1", manager.addr}) {
		t.Errorf("the managers are at %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "identity.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of credentials: %v, %v", info, err)
	}
	if again, err := m.Join(t.Context(), manager.worker(), []string{"127.0.0.1:1"}); err != nil || again != mine {
		t.Errorf("joining again: %v, %v", again, err)
	}
	if restarted := openIn(t, dir); restarted.NodeID() != name {
		t.Errorf("after a restart it is node %q, not %q", restarted.NodeID(), name)
	}
}

func TestTryingAgainGivesTheSameName(t *testing.T) {
	manager := startManager(t, "c1")
	m := openIn(t, t.TempDir())
	first, err := m.joiningKey()
	if err != nil {
		t.Fatal(err)
	}
	manager.edit(func() { manager.refusal = connect.NewError(connect.CodeUnavailable, errors.New("no leader")) })
	if _, err := m.Join(t.Context(), manager.worker(), []string{manager.addr}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("got %v", err)
	}
	manager.edit(func() { manager.refusal = nil })
	mine, err := m.Join(t.Context(), manager.worker(), []string{manager.addr})
	if err != nil || !mine.Key().Equal(first) {
		t.Errorf("joined with another key: %v", err)
	}
}

func TestManagersAreTriedInTurnUntilOneAnswers(t *testing.T) {
	manager := startManager(t, "c1")
	m := openIn(t, t.TempDir())
	if _, err := m.Join(t.Context(), manager.worker(), []string{refusing(t), manager.addr}); err != nil {
		t.Error(err)
	}
}

// refusing is an address where nothing listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// plain is an address where something answers that is no manager.
func plain(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("SSH-2.0-x\r\n"))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestWhatKeepsAMachineFromJoiningIsSaidWithWhatToDo(t *testing.T) {
	manager, other := startManager(t, "c1"), startManager(t, "c2")
	refused := func(code connect.Code, text string) func(t *testing.T) string {
		return func(t *testing.T) string {
			manager.edit(func() { manager.refusal = connect.NewError(code, errors.New(text)) })
			t.Cleanup(func() { manager.edit(func() { manager.refusal = nil }) })
			return manager.addr
		}
	}
	at := func(addr string) func(*testing.T) string { return func(*testing.T) string { return addr } }
	showing := func(c *pki.Credentials) func(*testing.T) string {
		return func(t *testing.T) string { return manager.serve(t, pki.NewHolder(c)) }
	}
	for name, c := range map[string]struct {
		token string
		at    func(*testing.T) string
		code  connect.Code
		want  string
	}{
		"not a token":                   {"secret", at(manager.addr), connect.CodeInvalidArgument, "it is not a join token"},
		"a token cut off":               {manager.worker()[:40], at(manager.addr), connect.CodeInvalidArgument, "damaged or cut off"},
		"a manager's token":             {manager.token(warrenv1.Role_ROLE_MANAGER), at(manager.addr), connect.CodeInvalidArgument, "it is a manager's join token"},
		"no address":                    {manager.worker(), at("10.0.0.5"), connect.CodeInvalidArgument, "it must be HOST:PORT"},
		"a wrong token":                 {manager.worker(), refused(connect.CodeUnauthenticated, "the join token is not one of this cluster's"), connect.CodeUnauthenticated, "not one of this cluster's"},
		"an expired token":              {manager.worker(), refused(connect.CodeUnauthenticated, "the join token has expired"), connect.CodeUnauthenticated, "has expired"},
		"clocks apart":                  {manager.worker(), refused(connect.CodeFailedPrecondition, "the clocks are too far apart: set the clocks (NTP)"), connect.CodeFailedPrecondition, "set the clocks"},
		"a token of another cluster":    {other.worker(), at(manager.addr), connect.CodeUnauthenticated, "the join token is of another cluster, or from before the cluster's CA was replaced"},
		"an agent's certificate":        {manager.worker(), showing(manager.issue(t, warrenv1.Role_ROLE_AGENT, time.Now())), connect.CodeUnavailable, "whoever answers is not a manager but agent"},
		"a certificate from tomorrow":   {manager.worker(), showing(manager.own(t, time.Now().Add(24*time.Hour))), connect.CodeFailedPrecondition, "set the clocks (NTP)"},
		"a certificate that is too old": {manager.worker(), showing(manager.own(t, time.Now().Add(-month-30*time.Minute))), connect.CodeFailedPrecondition, "the certificate has expired"},
		"a manager of no cluster":       {manager.worker(), showing(nil), connect.CodeUnavailable, "run `warrenctl cluster init` on its machine first"},
		"nobody there":                  {manager.worker(), refusing, connect.CodeUnavailable, "connection refused: is warren-manager running there"},
		"no such name":                  {manager.worker(), at("nobody.invalid:7420"), connect.CodeUnavailable, "nobody.invalid"},
		"somebody without TLS":          {manager.worker(), plain, connect.CodeUnavailable, "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			m := openIn(t, t.TempDir())
			_, err := m.Join(t.Context(), c.token, []string{c.at(t)})
			if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v with %q", err, c.code, c.want)
			}
			if err != nil && strings.Contains(err.Error(), c.token) {
				t.Errorf("the token is in the error: %v", err)
			}
			if _, err := os.Stat(m.path()); !errors.Is(err, fs.ErrNotExist) || m.NodeID() != "" {
				t.Errorf("it is a member all the same: %v", err)
			}
		})
	}
}

// What a wrong token gives does not depend on the order of the managers, and no manager is asked in vain.
func TestAnAnswerOfTheClusterEndsTheTries(t *testing.T) {
	manager := startManager(t, "c1")
	manager.edit(func() { manager.refusal = connect.NewError(connect.CodeUnauthenticated, errors.New("no")) })
	m := openIn(t, t.TempDir())
	_, err := m.Join(t.Context(), manager.worker(), []string{manager.addr, manager.addr})
	if connect.CodeOf(err) != connect.CodeUnauthenticated || manager.joins != 1 {
		t.Errorf("%v after %d calls", err, manager.joins)
	}
}

func TestAMemberMovesToAnotherClusterOnlyThroughForgettingItsOwn(t *testing.T) {
	one, two := startManager(t, "c1"), startManager(t, "c2")
	m := member(t, one)
	before := m.NodeID()
	_, err := m.Join(t.Context(), two.worker(), []string{two.addr})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "warrenctl cluster leave") || m.NodeID() != before {
		t.Errorf("got %v as node %s", err, m.NodeID())
	}
	if err := m.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.path()); !errors.Is(err, fs.ErrNotExist) || m.NodeID() != "" || len(m.Addrs()) != 0 {
		t.Errorf("left: %v, node %q, managers %q", err, m.NodeID(), m.Addrs())
	}
	mine, err := m.Join(t.Context(), two.worker(), []string{two.addr})
	if err != nil || mine.Identity().Cluster != "c2" || mine.Identity().Name == before {
		t.Errorf("got %v, %v", mine, err)
	}
}

func TestAFileOfCredentialsThatIsNoAgentsIsRefused(t *testing.T) {
	manager, dir := startManager(t, "c1"), t.TempDir()
	path := filepath.Join(dir, "identity.pem")
	if err := manager.own(t, time.Now()).Save(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Record: &record{}}); err == nil || !strings.Contains(err.Error(), "--data-dir of its own") {
		t.Errorf("a manager's: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Record: &record{}}); err == nil || !strings.Contains(err.Error(), "let this machine join") {
		t.Errorf("a broken one: %v", err)
	}
}

func TestWhatTheClusterTellsOfItsManagersIsKeptBesideWhatWorks(t *testing.T) {
	m := openIn(t, t.TempDir(), "seed:1")
	m.Heed(&warrenv1.Directory{Managers: []string{"a:1", "b:1"}}, "nat:1")
	if got := m.Addrs(); !slices.Equal(got, []string{"a:1", "b:1", "nat:1", "seed:1"}) {
		t.Errorf("got %q", got)
	}
	m.Heed(&warrenv1.Directory{Managers: []string{"b:1"}}, "b:1")
	if got := m.Addrs(); !slices.Equal(got, []string{"b:1", "seed:1"}) {
		t.Errorf("got %q", got)
	}
	m.Heed(&warrenv1.Directory{}, "b:1")
	if got := m.Addrs(); !slices.Equal(got, []string{"b:1", "seed:1"}) {
		t.Errorf("got %q", got)
	}
}

func TestACertificateIsRenewedInTimeForTheSameName(t *testing.T) {
	manager := startManager(t, "c1")
	manager.edit(func() { manager.life = 4 * time.Second }) // due soon, and good for as long as a busy machine may take
	m := member(t, manager)
	before := m.Holder().Get()
	manager.edit(func() { manager.life = month })
	keeping(t, m)
	if name := next(t, manager.renews, "renewal"); name != m.NodeID() {
		t.Errorf("%s was renewed, not %s", name, m.NodeID())
	}
	for m.Holder().Get() == before {
		<-time.After(time.Millisecond) // until the answer has arrived
	}
	after, err := pki.LoadFile(m.path())
	if err != nil || !after.NotAfter().After(before.NotAfter()) || !after.Key().Equal(before.Key()) {
		t.Errorf("kept %v, %v", after, err)
	}
	select {
	case <-m.Fresh():
		t.Error("the session is to be opened anew although the CA is the same")
	default:
	}
}

func TestARenewalThatFailsIsTriedAgain(t *testing.T) {
	manager := startManager(t, "c1")
	manager.edit(func() { manager.life = 4 * time.Second })
	m := member(t, manager)
	down := connect.NewError(connect.CodeUnavailable, errors.New("no leader"))
	manager.edit(func() { manager.refusal, manager.life = down, month })
	if err := m.Renew(t.Context()); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	keeping(t, m)
	manager.edit(func() { manager.refusal = nil })
	next(t, manager.renews, "renewal")
}

func TestACAThatIsReplacedIsFollowedAndTheSessionOpenedAnew(t *testing.T) {
	manager := startManager(t, "c1")
	m := member(t, manager)
	keeping(t, m)

	old := manager.ca
	fresh, bridge, err := old.Successor(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := [][]byte{fresh.Certificate.Raw, old.Certificate.Raw}
	manager.edit(func() { manager.ca, manager.roots, manager.bridge = fresh, roots, bridge })
	trusting, err := manager.credentials.Get().Trusting(roots, bridge)
	if err != nil {
		t.Fatal(err)
	}
	manager.credentials.Set(trusting)
	m.Heed(&warrenv1.Directory{Roots: roots, Bridge: bridge}, manager.addr)
	next(t, m.Fresh(), "a session to be opened anew")
	if mine := m.Holder().Get(); !mine.Current() || !mine.Trusts(roots, bridge) {
		t.Error("the certificate is not of the new CA")
	}

	// In the end the old one is forgotten.
	manager.credentials.Set(manager.own(t, time.Now()))
	only := [][]byte{fresh.Certificate.Raw}
	changed := m.watch()
	m.Heed(&warrenv1.Directory{Roots: only}, manager.addr)
	next(t, changed, "the end of the old CA")
	kept, err := pki.LoadFile(m.path())
	if err != nil || !kept.Trusts(only, nil) {
		t.Errorf("kept %v, %v", kept, err)
	}
}

func TestAMachineThatIsConfiguredToJoinTriesUntilItWorks(t *testing.T) {
	manager, dir := startManager(t, "c1"), t.TempDir()
	m := openIn(t, dir)
	file := filepath.Join(dir, "token")
	problems := make(chan error, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.JoinUnattended(t.Context(), Unattended{TokenFile: file, Managers: []string{manager.addr}}, func(err error) { problems <- err })
	}()
	if err := next(t, problems, "a problem"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(file, []byte(manager.worker()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	next(t, done, "joining")
	if m.NodeID() == "" {
		t.Error("it is no member")
	}
}

func TestAMachineToldToJoinWhileItTriesItselfStopsTrying(t *testing.T) {
	manager, nowhere := startManager(t, "c1"), refusing(t)
	m := openIn(t, t.TempDir())
	problems := make(chan error, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.JoinUnattended(t.Context(), Unattended{Token: manager.worker(), Managers: []string{nowhere}}, func(err error) { problems <- err })
	}()
	next(t, problems, "a problem")
	if _, err := m.Join(t.Context(), manager.worker(), []string{manager.addr}); err != nil {
		t.Fatal(err)
	}
	next(t, done, "the end of trying")
	for len(problems) > 1 {
		<-problems
	}
	if last := <-problems; last != nil {
		t.Errorf("it still says %v", last)
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openIn(t, t.TempDir()).Await(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
