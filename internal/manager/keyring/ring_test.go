package keyring

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// credentials are a manager's of a CA of its own.
func credentials(t testing.TB) *pki.Credentials {
	t.Helper()
	ca, err := pki.NewCA("c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(&key.PublicKey, pki.Identity{Cluster: "c", Role: warrenv1.Role_ROLE_MANAGER, Name: "m1"}, 24*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mine, err := pki.New(key, cert, [][]byte{ca.Certificate.Raw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return mine
}

func openFolder(t testing.TB, dir string) *Ring {
	t.Helper()
	r, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// filled is a ring with a key and a certificate.
func filled(t testing.TB) (dir string, r *Ring, key authority.Key, mine *pki.Credentials) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	r = openFolder(t, dir)
	key, mine = authority.NewKey(), credentials(t)
	if err := errors.Join(r.SaveClusterKey(key), r.SaveCredentials(mine)); err != nil {
		t.Fatal(err)
	}
	return dir, r, key, mine
}

func reseal(t testing.TB, r *Ring, version uint64, k *unlockkey.Key) {
	t.Helper()
	if err := r.Reseal(version, k); err != nil {
		t.Fatal(err)
	}
}

// holds checks that a ring holds these two.
func holds(t testing.TB, r *Ring, key authority.Key, mine *pki.Credentials) {
	t.Helper()
	if got, ok := r.ClusterKey(); !ok || !got.Equal(key) || r.State() != Open {
		t.Fatalf("it does not hold the cluster's key: state %d", r.State())
	}
	if got := r.Credentials(); got == nil || !got.Key().Equal(mine.Key()) || !got.Certificate().Equal(mine.Certificate()) {
		t.Fatal("it does not hold the certificate and its key")
	}
}

// betrays tells whether any file of a folder holds a secret in the open.
func betrays(t testing.TB, dir string, key authority.Key, mine *pki.Credentials) bool {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(mine.Key())
	if err != nil {
		t.Fatal(err)
	}
	inTheOpen := keyFileContent{content: key.Secret()}.encode()
	plain, err := mine.Encode()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range [][]byte{key.Secret(), private, lineOf(inTheOpen), lineOf(plain)} {
			if bytes.Contains(text, secret) {
				return true
			}
		}
	}
	return false
}

// lineOf returns the first line of base64 in a text of PEM.
func lineOf(text []byte) []byte {
	var longest []byte
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		if len(longest) == 0 && len(line) >= 40 && !bytes.HasPrefix(line, []byte("-")) {
			longest = line
		}
	}
	return longest
}

func TestWithoutAutolockTheKeysAreThereAfterARestart(t *testing.T) {
	dir, _, key, mine := filled(t)
	r := openFolder(t, dir)
	holds(t, r, key, mine)
	select {
	case <-r.Unlocked():
	default:
		t.Error("it waits for a key")
	}
	if err := r.Unlock(unlockkey.New()); !errors.Is(err, ErrNotLocked) {
		t.Errorf("unlocked: %v", err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, keyFile: 0o600, identityFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: mode %v, %v", name, info.Mode(), err)
		}
	}
	if !betrays(t, dir, key, mine) {
		t.Error("the test does not see secrets in the open")
	}
}

func TestAnEmptyFolderHoldsNothingAndWaitsForNothing(t *testing.T) {
	r := openFolder(t, filepath.Join(t.TempDir(), "none"))
	if r.State() != None || r.Credentials() != nil || r.Certificate() != nil {
		t.Errorf("state %d", r.State())
	}
	if _, ok := r.ClusterKey(); ok {
		t.Error("there is a key")
	}
	if err := errors.Join(r.Reseal(1, new(unlockkey.New())), r.Forget()); err != nil {
		t.Error(err)
	}
}

func TestWithAutolockNothingIsReadWithoutTheKey(t *testing.T) {
	dir, r, key, mine := filled(t)
	unlock := unlockkey.New()
	reseal(t, r, 3, &unlock)
	holds(t, r, key, mine)
	if betrays(t, dir, key, mine) {
		t.Error("a secret is in the open")
	}
	r = openFolder(t, dir)
	if _, ok := r.ClusterKey(); ok || r.State() != Locked || r.Credentials() != nil {
		t.Fatalf("state %d", r.State())
	}
	if cert := r.Certificate(); cert == nil || !cert.Equal(mine.Certificate()) {
		t.Error("the certificate, which is no secret, is not told")
	}
	for _, err := range []error{r.SaveClusterKey(key), r.SaveCredentials(mine), r.Reseal(9, nil)} {
		if !errors.Is(err, ErrLocked) {
			t.Errorf("written while locked: %v", err)
		}
	}
	if err := r.Unlock(unlock); err != nil {
		t.Fatal(err)
	}
	holds(t, r, key, mine)
	<-r.Unlocked()
	// A certificate that is renewed is sealed as well.
	next := credentials(t)
	if err := r.SaveCredentials(next); err != nil {
		t.Fatal(err)
	}
	if betrays(t, dir, key, next) {
		t.Error("the renewed certificate's key is in the open")
	}
	r = openFolder(t, dir)
	if err := r.Unlock(unlock); err != nil {
		t.Fatal(err)
	}
	holds(t, r, key, next)
	reseal(t, r, 4, nil)
	holds(t, openFolder(t, dir), key, next)
}

func TestWrongKeysAreRefusedAndCannotBeTriedOneAfterTheOther(t *testing.T) {
	dir, r, key, mine := filled(t)
	unlock := unlockkey.New()
	reseal(t, r, 3, &unlock)
	synctest.Test(t, func(t *testing.T) {
		r := openFolder(t, dir)
		for _, wait := range []int{1, 2, 4, 8, 16, 30, 30} {
			if err := r.Unlock(unlockkey.New()); !errors.Is(err, ErrWrongKey) {
				t.Fatalf("a wrong key: %v", err)
			}
			time.Sleep(time.Duration(wait)*time.Second - time.Millisecond)
			if err := r.Unlock(unlock); !errors.Is(err, ErrEarly) || !strings.Contains(err.Error(), "1s") {
				t.Fatalf("within %d s: %v", wait, err)
			}
			time.Sleep(time.Millisecond)
		}
		if err := r.Unlock(unlock); err != nil {
			t.Fatal(err)
		}
		holds(t, r, key, mine)
	})
}

func TestAfterARotationTheNewKeyOpensAndBeforeItTheOldOneDoes(t *testing.T) {
	dir, r, key, mine := filled(t)
	before, after := unlockkey.New(), unlockkey.New()
	reseal(t, r, 3, &before)
	r = openFolder(t, dir)
	if err := r.Unlock(before); err != nil { // it has not heard of the new one yet
		t.Fatal(err)
	}
	reseal(t, r, 5, &after)
	r = openFolder(t, dir)
	if err := r.Unlock(after); err != nil {
		t.Fatal(err)
	}
	holds(t, r, key, mine)
}

func TestAManagerThatReplaysItsLogDoesNotFallBackOnAnOlderKey(t *testing.T) {
	dir, r, key, mine := filled(t)
	first, second := unlockkey.New(), unlockkey.New()
	reseal(t, r, 3, &first)
	reseal(t, r, 5, &second)
	r = openFolder(t, dir)
	if err := r.Unlock(second); err != nil {
		t.Fatal(err)
	}
	reseal(t, r, 3, &first)
	reseal(t, r, 4, nil)
	r = openFolder(t, dir)
	if err := r.Unlock(second); err != nil {
		t.Fatal(err)
	}
	reseal(t, r, 7, nil)
	r = openFolder(t, dir)
	reseal(t, r, 3, &first)
	reseal(t, r, 5, &second)
	holds(t, openFolder(t, dir), key, mine)
}

// TestACrashBetweenTheFilesLeavesNothingThatCannotBeOpened stops the work on the two files between them.
func TestACrashBetweenTheFilesLeavesNothingThatCannotBeOpened(t *testing.T) {
	dir, r, key, mine := filled(t)
	if err := r.hide(true); err != nil { // on the way to autolock
		t.Fatal(err)
	}
	r = openFolder(t, dir)
	holds(t, r, key, mine)
	unlock := unlockkey.New()
	reseal(t, r, 3, &unlock)
	r = openFolder(t, dir)
	if err := r.Unlock(unlock); err != nil {
		t.Fatal(err)
	}
	holds(t, r, key, mine)
	if err := r.writeKey(key, nil, 4); err != nil { // on the way back
		t.Fatal(err)
	}
	r = openFolder(t, dir)
	holds(t, r, key, mine)
	reseal(t, r, 4, nil)
	if text, err := os.ReadFile(filepath.Join(dir, identityFile)); err != nil || !bytes.Contains(text, []byte("BEGIN "+pemPrivateKey)) {
		t.Errorf("what was left undone is not done: %v", err)
	}
}

func TestAWriteThatFailsLeavesTheFilesAsTheyWere(t *testing.T) {
	dir, r, key, mine := filled(t)
	unlock := unlockkey.New()
	reseal(t, r, 3, &unlock)
	r.dir = filepath.Join(dir, keyFile) // a file, in which no file can be made
	if err := r.Reseal(4, nil); err == nil {
		t.Fatal("it was written")
	}
	r.dir = dir
	holds(t, r, key, mine)
	reopened := openFolder(t, dir)
	if err := reopened.Unlock(unlock); err != nil {
		t.Fatal(err)
	}
	reseal(t, r, 4, nil)
	holds(t, openFolder(t, dir), key, mine)
}

func TestLeftoversOfACrashGoAndOpenModesAreClosed(t *testing.T) {
	dir, _, key, mine := filled(t)
	left := filepath.Join(dir, keyFile+".new")
	other := filepath.Join(dir, "raft.db")
	if err := errors.Join(os.WriteFile(left, key.Secret(), 0o600), os.WriteFile(other, nil, 0o600), os.Chmod(filepath.Join(dir, keyFile), 0o644)); err != nil {
		t.Fatal(err)
	}
	holds(t, openFolder(t, dir), key, mine)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestThePrivateKeyIsInOnePlaceOnceThereIsACertificate(t *testing.T) {
	dir, r, key, mine := filled(t)
	drawn := filepath.Join(dir, drawnFile)
	gone := func(when string) {
		t.Helper()
		if _, err := os.Stat(drawn); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", when, err)
		}
	}
	leave := func() {
		t.Helper()
		if err := os.WriteFile(drawn, []byte("private"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	if err := r.SaveCredentials(mine); err != nil {
		t.Fatal(err)
	}
	gone("saved")
	leave() // by a crash right after the certificate was written
	holds(t, openFolder(t, dir), key, mine)
	gone("opened")
	reseal(t, r, 3, new(unlockkey.New()))
	leave()
	openFolder(t, dir)
	gone("opened while locked")
	if err := r.Forget(); err != nil {
		t.Fatal(err)
	}
	leave()
	openFolder(t, dir)
	if _, err := os.Stat(drawn); err != nil {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestKeysOfAnotherClusterAreNotOverwritten(t *testing.T) {
	dir, r, key, mine := filled(t)
	if err := r.SaveClusterKey(key); err != nil {
		t.Errorf("the same key: %v", err)
	}
	if err := r.SaveClusterKey(authority.NewKey()); !errors.Is(err, ErrTaken) {
		t.Errorf("another key: %v", err)
	}
	holds(t, openFolder(t, dir), key, mine)
}

func TestForgettingRemovesTheFilesAlsoWhileLocked(t *testing.T) {
	dir, r, _, _ := filled(t)
	reseal(t, r, 3, new(unlockkey.New()))
	r = openFolder(t, dir)
	if err := r.Forget(); err != nil {
		t.Fatal(err)
	}
	<-r.Unlocked()
	if r.State() != None || openFolder(t, dir).State() != None {
		t.Errorf("state %d", r.State())
	}
	if err := r.SaveClusterKey(authority.NewKey()); err != nil {
		t.Errorf("another cluster's key afterwards: %v", err)
	}
}

func TestDamagedFilesAreNamedWithWhatToDo(t *testing.T) {
	dir, r, _, _ := filled(t)
	good, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "nonsense", string(good[:len(good)/2]), string(good) + string(good), strings.Replace(string(good), ": 0", ": x", 1), strings.Repeat("x", maxFileBytes+1)} {
		if err := os.WriteFile(filepath.Join(dir, keyFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), keyFile) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), good, 0o600); err != nil {
		t.Fatal(err)
	}
	reseal(t, r, 1, new(unlockkey.New()))
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), keyFile+" is missing") {
		t.Errorf("without the key: %v", err)
	}
}

// TestWhateverHappensTheLastKeyOpens goes through random rotations, renewals and restarts.
func TestWhateverHappensTheLastKeyOpens(t *testing.T) {
	first, second := credentials(t), credentials(t)
	rapid.Check(t, func(rt *rapid.T) {
		dir := filepath.Join(t.TempDir(), "data")
		r, key, mine := openFolder(t, dir), authority.NewKey(), first
		if err := errors.Join(r.SaveClusterKey(key), r.SaveCredentials(mine)); err != nil {
			rt.Fatal(err)
		}
		var lock *unlockkey.Key
		version := uint64(1)
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				lock = new(unlockkey.New())
				version++
				reseal(t, r, version, lock)
			case 1:
				lock = nil
				version++
				reseal(t, r, version, nil)
			case 2:
				mine = rapid.SampledFrom([]*pki.Credentials{first, second}).Draw(rt, "certificate")
				if err := r.SaveCredentials(mine); err != nil {
					rt.Fatal(err)
				}
			case 3:
				r = openFolder(t, dir)
				if (lock != nil) != (r.State() == Locked) {
					rt.Fatalf("state %d", r.State())
				}
				if lock != nil {
					if err := r.Unlock(*lock); err != nil {
						rt.Fatal(err)
					}
				}
			}
			holds(t, r, key, mine)
			if (lock == nil) != betrays(t, dir, key, mine) {
				rt.Fatalf("in the open: %v", lock == nil)
			}
		}
	})
}

func TestTheFilesFollowTheClustersAutolock(t *testing.T) {
	dir, r, key, mine := filled(t)
	kept, err := authority.Found("c", key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store := statetest.New(t, statetest.Cluster(), kept)
	proposer := statetest.NewProposer(store)
	a := authority.New(store, proposer)
	a.SetKey(key)
	autolock := func(on bool) {
		tx := state.New(time.Now())
		if err := a.Autolock(tx, store.Snapshot(), on); err != nil {
			t.Fatal(err)
		}
		statetest.Commit(t, proposer, tx)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Keep(ctx, store, slog.New(slog.DiscardHandler)) }()
		autolock(true)
		synctest.Wait()
		first, err := a.UnlockKey(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		again := openFolder(t, dir)
		if err := again.Unlock(first); err != nil {
			t.Fatal(err)
		}
		// A disk that is full when the key is rotated is waited for.
		r.mu.Lock()
		r.dir = filepath.Join(dir, keyFile)
		r.mu.Unlock()
		second, err := a.UnlockKey(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := openFolder(t, dir).Unlock(first); err != nil {
			t.Errorf("the old key, while the new one could not be written: %v", err)
		}
		r.mu.Lock()
		r.dir = dir
		r.mu.Unlock()
		time.Sleep(longestRetry)
		synctest.Wait()
		if err := openFolder(t, dir).Unlock(second); err != nil {
			t.Errorf("the new key: %v", err)
		}
		autolock(false)
		synctest.Wait()
		holds(t, openFolder(t, dir), key, mine)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func FuzzFiles(f *testing.F) {
	dir, r, key, _ := filled(f)
	add := func() {
		k, err := os.ReadFile(filepath.Join(dir, keyFile))
		if err != nil {
			f.Fatal(err)
		}
		i, err := os.ReadFile(filepath.Join(dir, identityFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k, i)
	}
	add()
	reseal(f, r, 2, new(unlockkey.New()))
	add()
	f.Add([]byte("-----BEGIN WARREN CLUSTER KEY-----\n-----END WARREN CLUSTER KEY-----\n"), []byte{})
	f.Fuzz(func(t *testing.T, k, i []byte) {
		if c, err := decodeKeyFile(k); err == nil {
			again, err := decodeKeyFile(c.encode())
			if err != nil || again.sealed != c.sealed || again.version != c.version || !bytes.Equal(again.content, c.content) {
				t.Errorf("written %v, read %v, %v", c, again, err)
			}
		}
		if open, _, err := openIdentity(i, &key); err == nil {
			_, _ = pki.Decode(open)
		}
	})
}
