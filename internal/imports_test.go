// Package internal_test holds the house rules that no compiler knows: who may import whom.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/cuemby/warren/"

// programs are the three programs' trees, which never import each other.
var programs = []string{"internal/manager", "internal/agent", "internal/ctl"}

// guarded are modules that only some packages may import outside tests: what is hard to keep right
// is kept in one place.
var guarded = map[string][]string{
	"github.com/containerd/containerd": {"internal/agent/runtime", "test/"},
	"github.com/hashicorp/raft":        {"internal/manager/consensus", "internal/manager/state", "internal/manager", "test/bench"},
	"github.com/cilium/statedb":        {"internal/manager/state"},
	"github.com/alecthomas/kong":       {"cmd/warrenctl", "internal/ctl", "packaging/document"}, // see internal/daemonflags
	"github.com/spf13/pflag":           {"internal/daemonflags"},
	"github.com/prometheus/":           {"internal/metrics", "internal/manager/metrics", "internal/agent/metrics"},
	"go.opentelemetry.io/":             {"internal/tracing", "internal/manager/traces", "internal/agent/traces", "test/"},
	"golang.zx2c4.com/wireguard":       {"internal/agent/overlay/wireguard", "internal/agent/overlay", "test/"},
	"github.com/google/nftables":       {"internal/agent/overlay/rules/nft", "internal/agent/overlay/rules/iptables", "test/"},
	"github.com/coreos/go-iptables":    {"internal/agent/overlay/rules/iptables"},
	"github.com/miekg/dns":             {"internal/agent/overlay/names", "test/"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	var stderr bytes.Buffer
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestTheThreeProgramsNeverImportEachOther(t *testing.T) {
	for _, p := range packages(t) {
		from := programOf(p.ImportPath)
		if from == "" {
			continue
		}
		for _, imported := range p.Imports {
			if to := programOf(imported); to != "" && to != from {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestSharedPackagesImportNoProgram(t *testing.T) {
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, module+"internal/") || programOf(p.ImportPath) != "" {
			continue
		}
		for _, imported := range p.Imports {
			if programOf(imported) != "" {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestGuardedModulesAreImportedWhereTheyBelong(t *testing.T) {
	for _, p := range packages(t) {
		local := strings.TrimPrefix(p.ImportPath, module)
		for _, imported := range p.Imports {
			for guardedModule, allowed := range guarded {
				if strings.HasPrefix(imported, guardedModule) && !allows(allowed, local) {
					t.Errorf("%s imports %s, which belongs to %s", p.ImportPath, imported, strings.Join(allowed, ", "))
				}
			}
		}
	}
}

// TestControlLoopsNeverImportEachOther keeps the loops meeting in the state alone.
func TestControlLoopsNeverImportEachOther(t *testing.T) {
	loops := map[string]bool{}
	for _, name := range []string{"replicas", "rollout", "scheduler", "liveness", "retention", "rotation"} {
		loops[module+"internal/manager/"+name] = true
	}
	for _, p := range packages(t) {
		if !loops[p.ImportPath] {
			continue
		}
		for _, imported := range p.Imports {
			if loops[imported] {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func programOf(importPath string) string {
	local := strings.TrimPrefix(importPath, module)
	for _, p := range programs {
		if local == p || strings.HasPrefix(local, p+"/") {
			return p
		}
	}
	return ""
}

// allows tells whether a package is one of those named; a name that ends in a slash stands for all below it.
func allows(allowed []string, local string) bool {
	for _, a := range allowed {
		if local == a || strings.HasPrefix(local, strings.TrimSuffix(a, "/")+"/") {
			return true
		}
	}
	return false
}
