// Package unlockkey reads and writes the key that unlocks managers after a restart where the cluster has
// autolock: WRNKEY-1-, and 32 random bytes with a checksum, so that a slip of the pen is told from a wrong
// key before anything is tried with it.
//
// Start with Parse.
package unlockkey

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

const (
	prefix        = "WRNKEY-1-"
	secretBytes   = 32
	checksumBytes = 4
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ErrMalformed says that a text is no unlock key at all.
var ErrMalformed = errors.New("it is not an unlock key")

// Key is an unlock key. Printing one shows nothing of it; Text does.
type Key struct{ secret [secretBytes]byte }

// New draws a key.
func New() Key {
	var k Key
	rand.Read(k.secret[:]) // never fails: crypto/rand ends the program instead
	return k
}

// FromSecret returns the key of that secret, which must have 32 bytes.
func FromSecret(secret []byte) (Key, error) {
	var k Key
	if len(secret) != secretBytes {
		return Key{}, fmt.Errorf("%w: it has %d bytes, not %d", ErrMalformed, len(secret), secretBytes)
	}
	copy(k.secret[:], secret)
	return k, nil
}

// Secret is what to seal with.
func (k Key) Secret() []byte { return bytes.Clone(k.secret[:]) }

// Text writes the key as users keep it.
func (k Key) Text() string {
	return prefix + encoding.EncodeToString(append(k.Secret(), k.checksum()...))
}

// String shows that there is a key and not what it is, so that no log ever holds one.
func (Key) String() string { return prefix + "…" }

// GoString does for %#v what String does.
func (k Key) GoString() string { return k.String() }

// Equal compares in a time that tells nothing of the keys.
func (k Key) Equal(other Key) bool {
	return subtle.ConstantTimeCompare(k.secret[:], other.secret[:]) == 1
}

func (k Key) checksum() []byte {
	sum := sha256.Sum256(append([]byte("warren unlock key\x00"), k.secret[:]...))
	return sum[:checksumBytes]
}

// Parse reads a key. It fails with ErrMalformed; its errors never repeat what they were given.
func Parse(text string) (Key, error) {
	text = strings.TrimSpace(text)
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return Key{}, fmt.Errorf("%w: one begins with %s, and `warrenctl cluster unlock-key` on a manager that runs prints it", ErrMalformed, prefix)
	}
	decoded, err := encoding.DecodeString(strings.ToLower(text[len(prefix):]))
	if err == nil && len(decoded) == secretBytes+checksumBytes {
		var k Key
		copy(k.secret[:], decoded)
		if bytes.Equal(decoded[secretBytes:], k.checksum()) {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("%w: it is mistyped or cut off: copy all of it", ErrMalformed)
}
