// Package seal encrypts what a manager keeps with a secret of 32 bytes: AES-256-GCM with a random nonce,
// under a key that is derived from the secret for one purpose alone, so that nothing sealed for one
// purpose can be passed off as sealed for another.
//
// Start with Seal. What secrets there are, and where they are kept, is for others to say.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// SecretBytes is the length of a secret.
const SecretBytes = 32

// ErrOpen says that what was sealed cannot be opened: by another secret, for another purpose, or altered
// since. Which of them it is nobody can tell.
var ErrOpen = errors.New("it was sealed with another key, or is damaged")

// Seal encrypts and authenticates a text.
func Seal(secret []byte, purpose string, text []byte) ([]byte, error) {
	b, err := box(secret, purpose)
	if err != nil {
		return nil, err
	}
	return b.Seal(nil, nil, text, []byte(purpose)), nil
}

// Open returns the text that Seal was given. It fails with ErrOpen.
func Open(secret []byte, purpose string, sealed []byte) ([]byte, error) {
	b, err := box(secret, purpose)
	if err != nil {
		return nil, err
	}
	text, err := b.Open(nil, nil, sealed, []byte(purpose))
	if err != nil {
		return nil, ErrOpen // the cipher's own error says no more
	}
	return text, nil
}

func box(secret []byte, purpose string) (cipher.AEAD, error) {
	if len(secret) != SecretBytes {
		return nil, fmt.Errorf("a secret of %d bytes, not %d", len(secret), SecretBytes)
	}
	derived, err := hkdf.Key(sha256.New, secret, nil, "warren seal "+purpose, SecretBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
