package manager_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/manager"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestAFolderThatANewerManagerHasWrittenIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir)
	if err := dataformat.Record(o.DataDir, dataformat.Manager()+1); err != nil {
		t.Fatal(err)
	}
	m, err := manager.New(t.Context(), o)
	if err == nil {
		t.Fatal(errors.Join(errors.New("it was opened"), m.Close()))
	}
	if !strings.Contains(err.Error(), "install dev or newer again") {
		t.Error(err)
	}
	left, err := os.ReadDir(o.DataDir)
	if err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v", left, err)
	}
}

func TestTheFormatOfTheClustersStateIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	path := filepath.Join(options(t, dir).DataDir, dataformat.File)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before there is a cluster: %v", err)
	}
	r.init(t)
	await(t, "the format to be recorded", func(context.Context) error {
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), `"format":1`) {
			err = fmt.Errorf("it says %s", text)
		}
		return err
	})
}

func TestAManagerThatLeavesAndFoundsAnotherClusterRecordsItsFormatAnew(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	path := filepath.Join(options(t, dir).DataDir, dataformat.File)
	recorded := func(context.Context) error { _, err := os.Stat(path); return err }
	r.init(t)
	await(t, "the format to be recorded", recorded)
	if _, err := r.local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{Force: true})); err != nil {
		t.Fatal(err)
	}
	if err := recorded(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it has left: %v", err)
	}
	r.init(t)
	await(t, "the format to be recorded again", recorded)
}
