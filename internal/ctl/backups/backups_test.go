package backups_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/ctl/backups"
)

func never() (string, error) { return "", errors.New("a passphrase was asked for") }

func knowing(passphrase string) func() (string, error) {
	return func() (string, error) { return passphrase, nil }
}

func create(t *testing.T, path string, force bool, passphrase, text string) *backups.Writer {
	t.Helper()
	w, err := backups.Create(path, force, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return w
}

func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("the folder holds %v, not %v", names, want)
	}
}

func TestAFileIsThereWholeForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	w := create(t, path, false, "", "text")
	file, err := os.ReadFile(path)
	if err != nil || string(file) != "text" {
		t.Fatalf("%q, %v", file, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	sum := sha256.Sum256(file)
	if w.Size() != 4 || w.Sum() != hex.EncodeToString(sum[:]) {
		t.Errorf("%d bytes, %s", w.Size(), w.Sum())
	}
	r, err := backups.Open(bytes.NewReader(file), never)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "text" || r.Encrypted || r.Size() != 4 || r.Sum() != w.Sum() {
		t.Errorf("%q, %v", text, err)
	}
	only(t, dir, "b")
}

func TestWhatIsThereIsReplacedByForceAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	create(t, path, false, "", "old")
	if _, err := backups.Create(path, false, ""); !errors.Is(err, backups.ErrExists) {
		t.Errorf("got %v", err)
	}
	create(t, path, true, "", "new")
	if file, err := os.ReadFile(path); err != nil || string(file) != "new" {
		t.Errorf("%q, %v", file, err)
	}
	if _, err := backups.Create(dir, true, ""); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a folder: %v", err)
	}
	// One that has come meanwhile.
	late := filepath.Join(dir, "late")
	w, err := backups.Create(late, false, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(late, []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); !errors.Is(err, backups.ErrExists) {
		t.Errorf("got %v", err)
	}
	w, err = backups.Create(filepath.Join(dir, "given-up"), false, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	only(t, dir, "b", "late")
}

func TestAnEncryptedBackupOpensWithItsPassphraseAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	secret := strings.Repeat("nobody may read this ", 10_000)
	create(t, path, false, "open sesame", secret)
	file, err := os.ReadFile(path)
	if err != nil || bytes.Contains(file, []byte("nobody")) {
		t.Fatalf("it is not encrypted: %v", err)
	}
	if _, err := backups.Open(bytes.NewReader(file), knowing("open barley")); !errors.Is(err, backups.ErrPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if _, err := backups.Open(bytes.NewReader(file), never); err == nil || !strings.Contains(err.Error(), "asked for") {
		t.Errorf("none: %v", err)
	}
	r, err := backups.Open(bytes.NewReader(file), knowing("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != secret || !r.Encrypted || r.Size() != int64(len(file)) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	altered := bytes.Clone(file)
	altered[len(altered)-10] ^= 1
	for name, wrong := range map[string][]byte{"altered": altered, "cut short": file[:len(file)-1], "cut in its lead": file[:60]} {
		r, err := backups.Open(bytes.NewReader(wrong), knowing("open sesame"))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil || errors.Is(err, backups.ErrPassphrase) || !strings.Contains(err.Error(), "decrypt the backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
