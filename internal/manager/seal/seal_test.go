package seal_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cuemby/warren/internal/manager/seal"
)

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, seal.SecretBytes) }

func TestWhatWasSealedOpensWithTheSameSecretForTheSamePurposeAlone(t *testing.T) {
	text := []byte("what nobody may read")
	sealed, err := seal.Seal(secret(1), "a", text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := seal.Seal(secret(1), "a", text)
	if err != nil || bytes.Equal(sealed, again) || bytes.Contains(sealed, text) {
		t.Errorf("sealed twice alike, or in the open: %v", err)
	}
	if got, err := seal.Open(secret(1), "a", sealed); err != nil || !bytes.Equal(got, text) {
		t.Errorf("opened %q, %v", got, err)
	}
	if _, err := seal.Open(secret(2), "a", sealed); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another secret: %v", err)
	}
	if _, err := seal.Open(secret(1), "b", sealed); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another purpose: %v", err)
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		if _, err := seal.Open(secret(1), "a", altered); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("altered at %d: %v", i, err)
		}
		if _, err := seal.Open(secret(1), "a", sealed[:i]); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestASecretOfTheWrongLengthIsNoSecret(t *testing.T) {
	if _, err := seal.Seal(nil, "a", nil); err == nil {
		t.Error("sealed with nothing")
	}
	if _, err := seal.Open(secret(1)[1:], "a", nil); err == nil || errors.Is(err, seal.ErrOpen) {
		t.Errorf("got %v", err)
	}
}
