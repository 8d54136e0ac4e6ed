package keyring

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/seal"
	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/internal/unlockkey"
)

var (
	// ErrLocked says that the files are sealed and nobody has given the key yet.
	ErrLocked = errors.New("this manager is locked")
	// ErrNotLocked says that there is nothing to unlock.
	ErrNotLocked = errors.New("this manager is not locked")
	// ErrWrongKey says that a key does not open the files.
	ErrWrongKey = errors.New("the unlock key is wrong: `warrenctl cluster unlock-key` on another manager prints the right one. " +
		"If it was replaced while this manager was down, the one before is asked for here")
	// ErrEarly says that a wrong key was given a moment ago.
	ErrEarly = errors.New("a wrong unlock key was given a moment ago")
	// ErrTaken says that there are keys of another cluster.
	ErrTaken = errors.New("this manager holds the key of another cluster")
)

// State is how the files stand.
type State int

// The states.
const (
	// None: there is no key of a cluster.
	None State = iota
	// Open: what there is can be used.
	Open
	// Locked: an unlock key is asked for.
	Locked
)

const (
	keyFile      = "cluster.key"
	identityFile = "identity.pem"
	// drawnFile holds the private key of a manager that has no certificate yet. Once there is one the key
	// is kept with it, and nowhere else.
	drawnFile = "manager.key"

	sealClusterKey = "cluster key file"
	sealPrivateKey = "private key file"

	// shortestWait is how long no other key is tried after a wrong one. It doubles up to longestWait.
	shortestWait = time.Second
	longestWait  = 30 * time.Second
)

// Ring holds what the files hold. It is safe for concurrent use.
type Ring struct {
	dir      string
	unlocked chan struct{} // closed when it is not locked

	mu       sync.Mutex
	key      *authority.Key   // nil: there is none, or it is locked
	identity *pki.Credentials // nil: there are none, or they are locked
	// lock is what cluster.key is sealed with, nil where it is not. The ring is not to go back to what
	// was wanted before version, which is the authority's.
	lock    *unlockkey.Key
	version uint64
	// hidden tells that the private key is sealed in its file.
	hidden bool
	// While locked: what the files hold.
	sealed   []byte
	identify []byte

	wait time.Duration // after the last wrong key; 0 where there was none
	next time.Time     // no key is tried before
}

// OpenFolder reads the files of a data folder, which may be missing. Leftovers of writes that a crash has cut
// off are removed.
func OpenFolder(dir string) (*Ring, error) {
	r := &Ring{dir: dir, unlocked: make(chan struct{})}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("open the manager's keys: %w", err)
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	if r.sealed == nil {
		close(r.unlocked)
	}
	return r, nil
}

func (r *Ring) load() error {
	text, err := read(r.path(keyFile))
	if err == nil {
		err = r.loadKey(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the cluster's key %s: %w: restore the file from a copy of the data folder, or empty that folder and let the manager join anew", r.path(keyFile), err)
	}
	text, err = read(r.path(identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && r.sealed != nil:
		r.identify = text
	case err == nil:
		err = r.loadIdentity(text, r.key)
	}
	if err != nil {
		return fmt.Errorf("read the manager's certificate %s: %w", r.path(identityFile), err)
	}
	return r.drop()
}

// drop removes the private key's own file, where it is.
func (r *Ring) drop() error {
	if err := os.Remove(r.path(drawnFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the manager's key in one place: %w", err)
	}
	return nil
}

func (r *Ring) loadKey(text []byte) error {
	f, err := decodeKeyFile(text)
	if err != nil {
		return err
	}
	r.version = f.version
	if f.sealed {
		r.sealed = f.content
		return nil
	}
	key, err := authority.ParseKey(f.content)
	r.key = &key
	return err
}

func (r *Ring) loadIdentity(text []byte, key *authority.Key) error {
	open, hidden, err := openIdentity(text, key)
	if err != nil {
		return err
	}
	mine, err := pki.Decode(open)
	if err != nil {
		return err
	}
	r.identity, r.hidden = mine, hidden
	return nil
}

func (r *Ring) path(name string) string { return filepath.Join(r.dir, name) }

// State tells how the files stand.
func (r *Ring) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.sealed != nil:
		return Locked
	case r.key != nil:
		return Open
	}
	return None
}

// Unlocked is closed once the ring is not locked: from the start, or when Unlock has been given the key or
// Forget has removed what was locked.
func (r *Ring) Unlocked() <-chan struct{} { return r.unlocked }

// ClusterKey returns the cluster's key, false where there is none or it is locked.
func (r *Ring) ClusterKey() (authority.Key, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key == nil {
		return authority.Key{}, false
	}
	return *r.key, true
}

// Credentials returns the manager's certificate and key, nil where there are none or they are locked.
func (r *Ring) Credentials() *pki.Credentials {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.identity
}

// Certificate returns the manager's certificate, which is no secret, also while the ring is locked; nil
// where there is none.
func (r *Ring) Certificate() *x509.Certificate {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.identity != nil {
		return r.identity.Certificate()
	}
	for block, rest := pem.Decode(r.identify); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemCertificate {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				return cert
			}
		}
	}
	return nil
}

// Unlock opens the files with the unlock key. It fails with ErrNotLocked, with ErrWrongKey, or with
// ErrEarly where a wrong key was given less than a while ago; the while grows with each.
func (r *Ring) Unlock(k unlockkey.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed == nil {
		return ErrNotLocked
	}
	now := time.Now()
	if left := r.next.Sub(now); left > 0 {
		return fmt.Errorf("%w: try again in %s", ErrEarly, max(left.Round(time.Second), time.Second))
	}
	secret, err := seal.Open(k.Secret(), sealClusterKey, r.sealed)
	if err != nil {
		r.wait = min(max(2*r.wait, shortestWait), longestWait)
		r.next = now.Add(r.wait)
		return ErrWrongKey
	}
	key, err := authority.ParseKey(secret)
	if err != nil {
		return fmt.Errorf("read the cluster's key %s: %w", r.path(keyFile), err)
	}
	if r.identify != nil {
		if err := r.loadIdentity(r.identify, &key); err != nil {
			return fmt.Errorf("read the manager's certificate %s: %w", r.path(identityFile), err)
		}
	}
	r.key, r.lock = &key, &k
	r.sealed, r.identify, r.wait, r.next = nil, nil, 0, time.Time{}
	close(r.unlocked)
	return nil
}

// SaveClusterKey keeps the cluster's key, before anything is sealed with it. Until the state is known
// (Follow) it is kept as it is. It fails with ErrLocked, and with ErrTaken where there is another key.
func (r *Ring) SaveClusterKey(k authority.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.sealed != nil:
		return fmt.Errorf("keep the cluster's key: %w", ErrLocked)
	case r.key != nil && r.key.Equal(k):
		return nil
	case r.key != nil:
		return fmt.Errorf("keep the cluster's key: %w: run `warrenctl cluster leave` first", ErrTaken)
	}
	return r.writeKey(k, nil, 0)
}

// SaveCredentials keeps the manager's certificate and key, sealed where autolock asks for it. After a crash
// the file is there as it was before, or as it is to be. It fails with ErrLocked.
func (r *Ring) SaveCredentials(c *pki.Credentials) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed != nil {
		return fmt.Errorf("keep the manager's certificate: %w", ErrLocked)
	}
	if err := r.writeIdentity(c, r.lock != nil); err != nil {
		return err
	}
	return r.drop()
}

// Reseal has the files be sealed with a key, or with none; version is the authority's that says so. It
// changes nothing where that is so already, and where the files have followed a later version: a manager
// that replays its log must not fall back on a key that nobody has any more. At every moment either the
// key before opens the files or this one does. It fails with ErrLocked.
func (r *Ring) Reseal(version uint64, to *unlockkey.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed != nil {
		return fmt.Errorf("seal the manager's keys: %w", ErrLocked)
	}
	if r.key == nil || version < r.version {
		return nil
	}
	hide := to != nil
	// What is hidden by the cluster's key is hidden first and shown last, so that it is never without a
	// cluster.key that it can be opened with.
	if hide {
		if err := r.hide(true); err != nil {
			return err
		}
	}
	if same := hide == (r.lock != nil) && (!hide || r.lock.Equal(*to)); !same {
		if err := r.writeKey(*r.key, to, version); err != nil {
			return err
		}
	}
	return r.hide(hide)
}

// hide has the private key be sealed in its file, or not.
func (r *Ring) hide(hide bool) error {
	if r.identity == nil || r.hidden == hide {
		return nil
	}
	return r.writeIdentity(r.identity, hide)
}

func (r *Ring) writeKey(k authority.Key, lock *unlockkey.Key, version uint64) error {
	f := keyFileContent{version: version, content: k.Secret()}
	var err error
	if lock != nil {
		f.sealed = true
		f.content, err = seal.Seal(lock.Secret(), sealClusterKey, k.Secret())
	}
	if err == nil {
		err = pki.WriteSecret(r.path(keyFile), f.encode())
	}
	if err != nil {
		return fmt.Errorf("keep the cluster's key: %w", err)
	}
	r.key, r.lock, r.version = &k, lock, version
	return nil
}

func (r *Ring) writeIdentity(c *pki.Credentials, hide bool) error {
	text, err := c.Encode()
	if err == nil && hide {
		text, err = hideIdentity(text, r.key)
	}
	if err == nil {
		err = pki.WriteSecret(r.path(identityFile), text)
	}
	if err != nil {
		return fmt.Errorf("keep the manager's certificate: %w", err)
	}
	r.identity, r.hidden = c, hide
	return nil
}

// Forget removes the files, for a manager that leaves its cluster, locked or not.
func (r *Ring) Forget() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{identityFile, keyFile} {
		if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the manager's keys: %w", err)
		}
	}
	if err := syncDir(r.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the manager's keys: %w", err)
	}
	if r.sealed != nil {
		close(r.unlocked)
	}
	r.key, r.identity, r.lock, r.version, r.hidden = nil, nil, nil, 0, false
	r.sealed, r.identify, r.wait, r.next = nil, nil, 0, time.Time{}
	return nil
}
