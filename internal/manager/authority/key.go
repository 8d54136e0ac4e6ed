package authority

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/cuemby/warren/internal/jointoken"
	"github.com/cuemby/warren/internal/manager/seal"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// keyBytes is the length of the cluster's key: AES-256.
const keyBytes = seal.SecretBytes

// Key is the cluster's key, the one secret that managers hold beside the replicated state. Keys for each
// purpose are derived from it.
type Key struct{ secret []byte }

// NewKey draws a key.
func NewKey() Key {
	secret := make([]byte, keyBytes)
	rand.Read(secret) // never fails: crypto/rand ends the program instead
	return Key{secret}
}

// ParseKey takes a key that another manager has shared.
func ParseKey(secret []byte) (Key, error) {
	if len(secret) != keyBytes {
		return Key{}, fmt.Errorf("the cluster's key has %d bytes, not %d", len(secret), keyBytes)
	}
	return Key{bytes.Clone(secret)}, nil
}

// Secret is the key itself, for a manager that joins and for backups. Whoever has it and the state can be
// the cluster.
func (k Key) Secret() []byte { return bytes.Clone(k.secret) }

// Equal compares in a time that tells nothing of the keys.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k.secret, other.secret) == 1 }

// String shows that there is a key and not what it is, so that no log ever holds one.
func (Key) String() string { return "the cluster's key" }

// GoString does for %#v what String does.
func (k Key) GoString() string { return k.String() }

// Seal encrypts and authenticates a text; purpose keeps it from being taken for another.
func (k Key) Seal(purpose string, text []byte) ([]byte, error) {
	if len(k.secret) != keyBytes {
		return nil, errNoKey
	}
	return seal.Seal(k.secret, purpose, text)
}

// Open returns what Seal was given for that purpose.
func (k Key) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(k.secret) != keyBytes {
		return nil, errNoKey
	}
	text, err := seal.Open(k.secret, purpose, sealed)
	if err != nil {
		return nil, fmt.Errorf("the cluster's key on this manager does not fit its state: %s: %w", purpose, err)
	}
	return text, nil
}

var errNoKey = errors.New("this manager does not hold the cluster's key")

// tokenSecret returns the secret of a role's join token of that serial number. That it can be worked out
// again is what lets tokens be shown although only their hashes are kept.
func (k Key) tokenSecret(role warrenv1.Role, serial uint64) []byte {
	mac := hmac.New(sha256.New, k.secret)
	fmt.Fprintf(mac, "warren join token\x00%s\x00%d", pki.RoleName(role), serial)
	return mac.Sum(nil)[:jointoken.SecretBytes]
}
