package pki

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// replacing are an old CA, the one that replaces it, and what members are told meanwhile.
func replacing(t testing.TB, now time.Time) (old, next *CA, roots [][]byte, bridge []byte) {
	t.Helper()
	old = newTestCA(t, "c1", now)
	next, bridge, err := old.Successor(now)
	if err != nil {
		t.Fatal(err)
	}
	return old, next, [][]byte{next.Certificate.Raw, old.Certificate.Raw}, bridge
}

func TestCredentialsAreReadAsTheyWereWritten(t *testing.T) {
	now := time.Now()
	old, next, roots, bridge := replacing(t, now)
	path := filepath.Join(t.TempDir(), "new", "identity.pem")
	for _, c := range []*Credentials{
		issue(t, old, Identity{"c1", agent, "a1"}, month, now),
		issueTrusting(t, next, Identity{"c1", manager, "m1"}, month, now, roots, bridge),
	} {
		if err := c.Save(path); err != nil {
			t.Fatal(err)
		}
		got, err := LoadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got.Identity() != c.Identity() || !got.Key().Equal(c.Key()) || !bytes.Equal(got.Certificate().Raw, c.Certificate().Raw) ||
			!got.Trusts(derOf(c), c.bridge) || !c.Trusts(derOf(got), got.bridge) {
			t.Errorf("read %+v, wrote %+v", got, c)
		}
	}
}

func derOf(c *Credentials) (roots [][]byte) {
	for _, r := range c.Roots() {
		roots = append(roots, r.Raw)
	}
	return roots
}

func TestNobodyElseMayReadTheFile(t *testing.T) {
	now := time.Now()
	c := issue(t, newTestCA(t, "c1", now), Identity{"c1", agent, "a1"}, month, now)
	path := filepath.Join(t.TempDir(), "new", "identity.pem")
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v", p, info.Mode(), err)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("with mode %v: %v", mode, err)
		}
	}
}

func TestWhatACrashLeftBehindIsReplaced(t *testing.T) {
	now := time.Now()
	c := issue(t, newTestCA(t, "c1", now), Identity{"c1", agent, "a1"}, month, now)
	path := filepath.Join(t.TempDir(), "identity.pem")
	if err := os.WriteFile(path+".new", []byte("half of a ke"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestWhatCannotBeSavedLeavesTheFileAsItWas(t *testing.T) {
	now := time.Now()
	c := issue(t, newTestCA(t, "c1", now), Identity{"c1", agent, "a1"}, month, now)
	path := filepath.Join(t.TempDir(), "identity.pem")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(path); err == nil || !strings.Contains(err.Error(), "save credentials") {
		t.Errorf("saved: %v", err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key is left behind: %v", err)
	}
}

func TestAFileThatHoldsNoCredentialsIsRefusedByName(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	c, other := issue(t, ca, Identity{"c1", agent, "a1"}, month, now), issue(t, newTestCA(t, "c1", now), Identity{"c1", agent, "a1"}, month, now)
	good, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Encode()
	if err != nil {
		t.Fatal(err)
	}
	key, rest := cut(t, good)
	otherKey, otherRest := cut(t, foreign)
	const end = "-----END CERTIFICATE-----\n"
	mine, others := strings.SplitAfter(rest, end), strings.SplitAfter(otherRest, end) // the certificate, the CA's
	dir := t.TempDir()
	if _, err := LoadFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for name, text := range map[string]string{
		"empty": "", "no key": rest, "no certificate": key, "cut off": string(good[:len(good)/2]),
		"another's key": otherKey + rest, "two keys": key + otherKey + rest, "another's CA": key + mine[0] + others[1],
		"too large": string(good) + strings.Repeat("\n", maxFileBytes), "many CAs": string(good) + strings.Repeat(rest, maxRoots),
		"a bridge that is none": string(good) + string(pem.EncodeToMemory(&pem.Block{Type: pemBridge, Bytes: []byte("x")})),
		"a bridge of others":    string(good) + string(pem.EncodeToMemory(&pem.Block{Type: pemBridge, Bytes: other.Roots()[0].Raw})),
	} {
		path := filepath.Join(dir, "identity.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// cut cuts a file into its key and the rest.
func cut(t *testing.T, text []byte) (key, rest string) {
	t.Helper()
	block, left := pem.Decode(text)
	if block.Type != pemKey {
		t.Fatalf("it begins with %s", block.Type)
	}
	return string(text[:len(text)-len(left)]), string(left)
}

func TestRenewalIsBetweenHalfAndFourFifthsOfTheLife(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "c1", now)
	rapid.Check(t, func(rt *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(-2*time.Hour), int64(10*365*24*time.Hour)).Draw(rt, "life"))
		c := issue(t, ca, Identity{"c1", agent, "a1"}, life, now)
		after := c.RenewAt().Sub(now)
		slack := 2 * time.Second // certificates count in seconds
		if life > 0 && (after < life/2-slack || after > life*4/5+slack) {
			rt.Fatalf("of %v, after %v", life, after)
		}
		if life <= 0 && after > slack {
			rt.Fatalf("of no life, after %v", after)
		}
	})
}

func TestCredentialsKnowWhichStateOfTheCAsIsTheLater(t *testing.T) {
	now := time.Now()
	// However the clock runs, and however often in a second.
	for _, later := range []time.Duration{0, time.Hour, -100 * 24 * time.Hour} {
		a := newTestCA(t, "c1", now)
		b, ab, err := a.Successor(now.Add(later))
		if err != nil {
			t.Fatal(err)
		}
		c, bc, err := b.Successor(now)
		if err != nil {
			t.Fatal(err)
		}
		at := func(issuing *CA, bridge []byte, roots ...*CA) *Credentials {
			var der [][]byte
			for _, r := range roots {
				der = append(der, r.Certificate.Raw)
			}
			return issueTrusting(t, issuing, Identity{"c1", agent, "a1"}, month, now, der, bridge)
		}
		history := []*Credentials{at(a, nil, a), at(b, ab, b, a), at(b, nil, b), at(c, bc, c, b), at(c, nil, c)}
		for i, mine := range history {
			for j, told := range history {
				if got := mine.Ahead(derOf(told)); got != (i > j) {
					t.Errorf("at step %d, told of step %d: ahead %v", i, j, got)
				}
			}
		}
		if !history[0].Ahead(nil) || history[4].Ahead([][]byte{[]byte("x")}) {
			t.Error("no CAs are a later state, or what cannot be read an earlier")
		}
	}
}

func FuzzDecode(f *testing.F) {
	now := time.Now()
	old, next, roots, bridge := replacing(f, now)
	for _, c := range []*Credentials{
		issue(f, old, Identity{"c1", agent, "a1"}, month, now),
		issueTrusting(f, next, Identity{"c1", manager, "m1"}, month, now, roots, bridge),
	} {
		text, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Decode(text)
		if err != nil {
			return
		}
		c.RenewAt()
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Errorf("what it writes it cannot read: %v", err)
		}
	})
}
