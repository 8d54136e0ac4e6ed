package dataformat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderOfANewerFormatIsRefusedUntouched(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manager")
	if err := Check(dir, "warren-manager", 1); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
	if err := Record(dir, 2); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	err = Check(dir, "warren-manager", 1)
	for _, want := range []string{dir, "in format 2", "knows formats up to 1", "install dev or newer again"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
	if after, err := os.ReadFile(filepath.Join(dir, File)); err != nil || string(after) != string(before) {
		t.Errorf("the record is %q, %v", after, err)
	}
	for _, known := range []uint32{2, 3} {
		if err := Check(dir, "warren-manager", known); err != nil {
			t.Errorf("known up to %d: %v", known, err)
		}
	}
}

func TestARecordIsWrittenOnlyWhereItSaysSomethingElse(t *testing.T) {
	dir := t.TempDir()
	for _, format := range []uint32{1, 1, 2} {
		before, _ := os.Stat(filepath.Join(dir, File))
		if err := Record(dir, format); err != nil {
			t.Fatal(err)
		}
		told, err := read(dir)
		after, _ := os.Stat(filepath.Join(dir, File))
		if err != nil || told.Format != format || told.Version == "" {
			t.Errorf("recorded %+v, %v", told, err)
		}
		if before != nil && os.SameFile(before, after) != (format == 1) {
			t.Errorf("format %d: written %v", format, !os.SameFile(before, after))
		}
	}
}

func TestARecordThatTellsNothingIsNoReasonToGoOn(t *testing.T) {
	for _, text := range []string{"", "{}", "format: 1", `{"format":-1}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(dir, "warren-agent", 1); err == nil || !strings.Contains(err.Error(), File) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
