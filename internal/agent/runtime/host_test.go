package runtime

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
)

func TestTheControlGroupOfContainersGoesOnceNobodyIsInIt(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes control groups")
	}
	r := &Runtime{cgroups: cgroupVersion(), options: Options{CgroupParent: "/warren-test-" + rand.Text()}}
	parent := filepath.Join(cgroupRoot, r.options.CgroupParent)
	if r.cgroups == 1 {
		parent = filepath.Join(cgroupRoot, "pids", r.options.CgroupParent)
	}
	other := filepath.Join(parent, "other")
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(other)
		os.Remove(parent)
	})
	if err := r.RemoveCgroupParent(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.RemoveCgroupParent(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(parent); !os.IsNotExist(err) {
			t.Errorf("%s is there still: %v", parent, err)
		}
	}
}
