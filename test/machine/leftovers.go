//go:build linux

package machine

import (
	"context"
	_ "embed"
	"slices"
	"strings"
)

// What Warren names its things on a machine.
const (
	// Namespace is the containerd namespace of Warren's containers.
	Namespace = "warren"
	// CgroupParent is the cgroup that holds the cgroups of Warren's containers.
	CgroupParent = "/warren"
)

//go:embed leftovers.sh
var leftoversScript string

// Leftovers lists what containers leave on a machine when they are not taken away whole, one line
// each with its kind first: containers, tasks, writable snapshots and leases in containerd's
// namespace, shims, network namespaces, root file systems, cgroups, network links, kept output and the
// agent's files about them, and packet rules. The machine must be on and its containerd running. Images, and the snapshots they are made of, are not leftovers.
func (m *Machine) Leftovers(ctx context.Context) ([]string, error) {
	output, err := m.Run(ctx, "sh", "-ec", leftoversScript, "sh", Namespace, CgroupParent)
	if err != nil {
		return nil, err
	}
	lines := strings.FieldsFunc(output, func(r rune) bool { return r == '\n' })
	slices.Sort(lines)
	return lines, nil
}
