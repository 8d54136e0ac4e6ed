package unlockkey_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/unlockkey"
)

func TestAKeyIsReadAsItWasWritten(t *testing.T) {
	k := unlockkey.New()
	for _, text := range []string{k.Text(), " " + k.Text() + "\n", strings.ToUpper(k.Text())} {
		got, err := unlockkey.Parse(text)
		if err != nil || !got.Equal(k) {
			t.Errorf("%v", err)
		}
	}
	if unlockkey.New().Equal(k) {
		t.Error("drew the same key twice")
	}
	if again, err := unlockkey.FromSecret(k.Secret()); err != nil || !again.Equal(k) {
		t.Errorf("from its secret: %v", err)
	}
}

func TestEverySlipOfThePenIsNoticed(t *testing.T) {
	text := unlockkey.New().Text()
	for i := range text {
		for _, wrong := range []string{text[:i], text[:i] + "8" + text[i+1:], text[:i] + text[i+1:]} {
			_, err := unlockkey.Parse(wrong)
			if !errors.Is(err, unlockkey.ErrMalformed) {
				t.Fatalf("%d: %v", i, err)
			}
			if len(wrong) > 20 && strings.Contains(err.Error(), wrong[len(wrong)-20:]) {
				t.Errorf("repeats the key: %v", err)
			}
		}
	}
}

func TestPrintingAKeyDoesNotShowIt(t *testing.T) {
	k := unlockkey.New()
	secret := k.Text()[len("WRNKEY-1-"):]
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if said := fmt.Sprintf(format, k); strings.Contains(said, secret) || !strings.Contains(said, "WRNKEY-1-…") {
			t.Errorf("%s shows %s", format, said)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unlockkey.New().Text())
	f.Add("WRNKEY-1-")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := unlockkey.Parse(text)
		if err != nil {
			return
		}
		if again, err := unlockkey.Parse(k.Text()); err != nil || !again.Equal(k) {
			t.Errorf("%v", err)
		}
	})
}
