package jointoken

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func tokenOf(t testing.TB, role warrenv1.Role) Token {
	t.Helper()
	ca, err := pki.NewCA("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return Token{Digest: pki.Digest(ca.Certificate), Role: role, Secret: bytes.Repeat([]byte{7}, SecretBytes)}
}

func TestATokenIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		written := tokenOf(t, rapid.SampledFrom([]warrenv1.Role{warrenv1.Role_ROLE_AGENT, warrenv1.Role_ROLE_MANAGER}).Draw(rt, "role"))
		written.Secret = rapid.SliceOfN(rapid.Byte(), SecretBytes, SecretBytes).Draw(rt, "secret")
		around := rapid.SampledFrom([]string{"", " ", "\n", "\r\n", "\t"})
		read, err := Parse(around.Draw(rt, "before") + written.String() + around.Draw(rt, "after"))
		if err != nil || read.Digest != written.Digest || read.Role != written.Role || !bytes.Equal(read.Secret, written.Secret) {
			rt.Fatalf("read %v, wrote %v: %v", read, written, err)
		}
	})
}

func TestADamagedTokenIsRefusedAndNotRepeated(t *testing.T) {
	good := tokenOf(t, warrenv1.Role_ROLE_AGENT).String()
	for name, damaged := range map[string]string{
		"nothing":              "",
		"something else":       "SWMTKN-1-abc-def",
		"a later version":      strings.Replace(good, "-1-", "-2-", 1),
		"the beginning":        good[:len(good)-1],
		"the digest alone":     good[:len(prefix)+52],
		"too much":             good + "a",
		"capitals":             strings.ToUpper(good),
		"a line break within":  good[:80] + "\n" + good[80:],
		"another role":         good[:len(prefix)+53] + "x" + good[len(prefix)+54:],
		"no such letter":       good[:len(good)-1] + "1",
		"another last bit":     good[:len(prefix)+51] + "9" + good[len(prefix)+52:],
		"a page of text":       strings.Repeat(good, 100),
		"a digest not as such": prefix + strings.Repeat("a", 51) + "b" + good[len(prefix)+52:], // a's last bits are not used
	} {
		_, err := Parse(damaged)
		switch {
		case err == nil:
			t.Errorf("%s is taken", name)
		case !strings.Contains(err.Error(), "`warrenctl cluster join-token worker`"):
			t.Errorf("%s: %q does not say what to do", name, err)
		case len(damaged) > len(prefix)+60 && strings.Contains(err.Error(), damaged[len(prefix)+55:len(prefix)+60]):
			t.Errorf("%s: %q repeats it", name, err)
		}
	}
}

func TestALogDoesNotTellTheSecret(t *testing.T) {
	token := tokenOf(t, warrenv1.Role_ROLE_MANAGER)
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("joining", "token", token)
	slog.New(slog.NewTextHandler(&out, nil)).Info("joining", "token", token)
	secret := token.String()[len(prefix)+len(token.Digest)+1:]
	if strings.Contains(out.String(), secret[1:]) || !strings.Contains(out.String(), token.Digest) {
		t.Error(out.String())
	}
}

func TestWhatIsKeptOfASecretTellsNothingOfIt(t *testing.T) {
	token := tokenOf(t, warrenv1.Role_ROLE_AGENT)
	kept := token.Hash()
	if bytes.Contains(kept, token.Secret[:4]) || len(kept) != 32 || bytes.Equal(kept, Token{Secret: make([]byte, SecretBytes)}.Hash()) {
		t.Errorf("kept %x of %x", kept, token.Secret)
	}
}

func FuzzParse(f *testing.F) {
	for _, role := range []warrenv1.Role{warrenv1.Role_ROLE_AGENT, warrenv1.Role_ROLE_MANAGER} {
		f.Add(tokenOf(f, role).String())
	}
	f.Add(prefix + "-")
	f.Add(fmt.Sprint(prefix, strings.Repeat("a", 52), "-w"))
	f.Fuzz(func(t *testing.T, s string) {
		token, err := Parse(s)
		if err != nil {
			return
		}
		if token.String() != strings.TrimSpace(s) || !pki.IsDigest(token.Digest) || len(token.Secret) != SecretBytes {
			t.Errorf("%q is read as %+v", s, token)
		}
	})
}
