package manager

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/keyring"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/pki"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// follower is what of a manager keeps its certificate, over a state that others write.
type follower struct {
	*Manager
	t      *testing.T
	key    authority.Key
	leader *authority.Authority
	stop   func()
}

func newFollower(t *testing.T, life time.Duration) *follower {
	t.Helper()
	key := authority.NewKey()
	kept, err := authority.Found(statetest.ClusterID, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := statetest.New(t, statetest.Cluster(func(c *warrenv1.Cluster) { c.Spec.CertificateLife = durationpb.New(life) }), kept)
	f := &follower{t: t, key: key, leader: authority.New(store, statetest.NewProposer(store))}
	f.leader.SetKey(key)
	f.Manager = f.start(store, t.TempDir())
	return f
}

// start returns a manager of that data folder, as after a restart.
func (f *follower) start(store *state.Store, dir string) *Manager {
	f.t.Helper()
	m := &Manager{
		options: Options{DataDir: dir}, logger: slog.New(slog.DiscardHandler), store: store,
		authority: authority.New(store, statetest.NewProposer(store)), credentials: pki.NewHolder(nil), core: newCore(),
		front: &front{logger: slog.New(slog.DiscardHandler)},
	}
	if err := m.identify(); err != nil {
		f.t.Fatal(err)
	}
	m.name("m1")
	var err error
	if m.ring, err = keyring.OpenFolder(dir); err != nil {
		f.t.Fatal(err)
	}
	if err := m.ring.SaveClusterKey(f.key); err != nil {
		f.t.Fatal(err)
	}
	m.loadTrust()
	return m
}

// keep runs keepCertificate until the test ends or stop is called.
func (f *follower) keep() {
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan struct{})
	m := f.Manager
	go func() {
		defer close(ended)
		m.keepCertificate(ctx)
	}()
	f.stop = func() { cancel(); <-ended }
	synctest.Wait()
}

// saved is what the manager would have after a restart.
func (f *follower) saved() *pki.Credentials {
	f.t.Helper()
	c, err := pki.LoadFile(f.path("identity.pem"))
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *follower) kept() *statev1.Authority { return f.store.Snapshot().Authority() }

func (f *follower) rotate() {
	f.t.Helper()
	if err := f.leader.Rotate(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	synctest.Wait()
}

// endRotation does what control loop rotation does.
func (f *follower) endRotation() {
	f.t.Helper()
	transaction := state.New(time.Now())
	state.Update(transaction, f.kept(), func(a *statev1.Authority) { a.Roots, a.Bridge, a.RotationStartedAt = a.GetRoots()[:1], nil, nil })
	statetest.Commit(f.t, statetest.NewProposer(f.store), transaction)
	synctest.Wait()
}

func TestAManagerWithoutACertificateGivesItselfOneWhetherItLeadsOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, time.Hour)
		f.keep()
		defer f.stop()
		got := f.credentials.Get()
		if want := (pki.Identity{Cluster: statetest.ClusterID, Role: warrenv1.Role_ROLE_MANAGER, Name: "m1"}); got == nil || got.Identity() != want {
			t.Fatalf("it has %+v", got)
		}
		if f.saved().Identity() != got.Identity() {
			t.Errorf("it has saved %+v", f.saved().Identity())
		}
	})
}

func TestAManagerRenewsItsCertificateInTimeAndNotSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, 100*time.Hour)
		f.keep()
		defer f.stop()
		first := f.credentials.Get()
		// The state changes all the time, which must not bring renewal forward.
		for hour := range 49 {
			time.Sleep(time.Hour)
			statetest.Put(t, f.store, statetest.Node("n1", func(n *warrenv1.Node) { n.Status.Message = time.Duration(hour).String() }))
			synctest.Wait()
		}
		if f.credentials.Get() != first {
			t.Error("it renewed in the first half")
		}
		time.Sleep(33 * time.Hour)
		synctest.Wait()
		if now := f.credentials.Get(); now == first || now.NotAfter().Before(first.NotAfter()) {
			t.Error("after 82 of 100 hours it has the same certificate")
		}
	})
}

func TestAManagerRenewsAsSoonAsTheCAIsReplacedAndForgetsTheOldOneWithTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, time.Hour)
		f.keep()
		defer f.stop()
		for range 3 {
			old := f.credentials.Get()
			f.rotate()
			during := f.credentials.Get()
			if !during.Trusts(f.kept().GetRoots(), f.kept().GetBridge()) || !during.Current() || during == old {
				t.Errorf("while the CA is replaced it trusts %d CAs", len(during.Roots()))
			}
			f.endRotation()
			after := f.credentials.Get()
			if !after.Trusts(f.kept().GetRoots(), nil) || len(after.Roots()) != 1 || string(after.Certificate().Raw) != string(during.Certificate().Raw) {
				t.Errorf("afterwards it trusts %d CAs", len(after.Roots()))
			}
			if !f.saved().Trusts(f.kept().GetRoots(), nil) {
				t.Error("it has not saved that the old CA is gone")
			}
		}
	})
}

// TestAManagerThatReadsItsLogAgainDoesNotGoBackToACAOfThePast: the log passes every state that there was, and
// with a certificate of one of these nobody would send it the rest.
func TestAManagerThatReadsItsLogAgainDoesNotGoBackToACAOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, time.Hour)
		f.keep()
		past := []*statev1.Authority{f.kept()}
		for range 2 {
			f.rotate()
			past = append(past, f.kept())
			f.endRotation()
			past = append(past, f.kept())
		}
		f.stop()
		mine := f.saved()

		again := state.NewStore()
		f.Manager = f.start(again, f.options.DataDir)
		f.keep()
		defer f.stop()
		cluster := statetest.Cluster()
		statetest.Put(t, again, cluster)
		for i, then := range past {
			statetest.Put(t, again, proto.CloneOf(then))
			time.Sleep(2 * time.Hour) // well past the time of renewal
			synctest.Wait()
			if now := f.credentials.Get(); i < len(past)-1 && (string(now.Certificate().Raw) != string(mine.Certificate().Raw) || !now.Trusts(trusted(mine), nil)) {
				t.Errorf("at step %d it has taken another certificate", i)
			}
		}
		if now := f.credentials.Get(); !now.Trusts(past[len(past)-1].GetRoots(), nil) || time.Until(now.NotAfter()) < 0 {
			t.Errorf("once it has caught up it goes on with %v", now.NotAfter())
		}
	})
}

// trusted are the CAs that credentials trust, in DER.
func trusted(c *pki.Credentials) (roots [][]byte) {
	for _, r := range c.Roots() {
		roots = append(roots, r.Raw)
	}
	return roots
}

func TestACertificateThatCannotBeKeptIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, time.Hour)
		// Something is in the way of the file.
		if err := os.MkdirAll(filepath.Join(f.path("identity.pem"), "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		f.keep()
		defer f.stop()
		// Neither time nor changes of the state make it try all the time.
		for i := range 100 {
			statetest.Put(t, f.store, statetest.Node("n1", func(n *warrenv1.Node) { n.Status.Message = time.Duration(i).String() }))
			synctest.Wait()
		}
		if f.credentials.Get() != nil {
			t.Fatal("it has a certificate that would not survive a restart")
		}
		if err := os.RemoveAll(f.path("identity.pem")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if f.credentials.Get() != nil {
			t.Error("it did not wait before it tried again")
		}
		time.Sleep(longestRenewal)
		synctest.Wait()
		if f.credentials.Get() == nil {
			t.Error("it has given up")
		}
	})
}

func TestAManagerWaitsForTheStateBeforeItCaresForItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, time.Hour)
		full := f.store
		empty := state.NewStore()
		f.Manager = f.start(empty, f.options.DataDir)
		f.keep()
		defer f.stop()
		if f.credentials.Get() != nil {
			t.Error("it has a certificate of no cluster")
		}
		statetest.Put(t, empty, full.Snapshot().Cluster(), full.Snapshot().Authority())
		synctest.Wait()
		if f.credentials.Get() == nil {
			t.Error("it has none once it knows the cluster")
		}
	})
}
