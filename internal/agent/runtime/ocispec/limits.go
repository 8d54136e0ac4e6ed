package ocispec

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	cfsPeriod = 100_000 // microseconds, the kernel's own default
	leastCfs  = 1_000   // the kernel takes no smaller quota
	cpu       = 1_000_000_000

	sharesOfCPU = 1024
	leastShares = sharesOfCPU / 10
)

// buildResources sets the control group. Where processors are short, tasks share them as they have
// reserved them. One that reserved little or nothing counts as a tenth of a processor: with the least the
// kernel allows it would come to a halt beside one that reserved, and fail its health probes.
func buildResources(limits, reservations *warrenv1.Resources, host Host) *specs.LinuxResources {
	shares := max(leastShares, uint64(reservations.GetNanoCpus()*sharesOfCPU/cpu))
	resources := &specs.LinuxResources{
		// runc adds the harmless devices to what is allowed.
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		CPU:     &specs.LinuxCPU{Shares: &shares},
	}
	if nano := limits.GetNanoCpus(); nano > 0 {
		quota := max(leastCfs, int64(math.Round(float64(nano)/cpu*cfsPeriod)))
		period := uint64(cfsPeriod)
		resources.CPU.Quota, resources.CPU.Period = &quota, &period
	}
	if limit := limits.GetMemoryBytes(); limit > 0 {
		resources.Memory = &specs.LinuxMemory{Limit: &limit}
		if host.LimitsSwap {
			resources.Memory.Swap = &limit // memory and swap together: no swap at all
		}
	}
	if limit := limits.GetPids(); limit > 0 {
		resources.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return resources
}

// Without a word from the user a program may open as many files as a service of the node's own, as far as
// the node lets us.
const softFiles, hardFiles = 1024, 524288

func buildRlimits(ulimits []*warrenv1.Ulimit, host Host) ([]specs.POSIXRlimit, error) {
	var rlimits []specs.POSIXRlimit
	for _, u := range ulimits {
		limit := specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.GetName()),
			Soft: uint64(u.GetSoft()), // -1, unlimited, is the largest number, which is what the kernel calls it
			Hard: uint64(u.GetHard()),
		}
		if limit.Soft > limit.Hard {
			return nil, fmt.Errorf("ulimit %s: the soft limit is above the hard one; raise hard or lower soft", u.GetName())
		}
		if slices.ContainsFunc(rlimits, func(r specs.POSIXRlimit) bool { return r.Type == limit.Type }) {
			return nil, fmt.Errorf("ulimit %s: given twice", u.GetName())
		}
		rlimits = append(rlimits, limit)
	}
	const files = "RLIMIT_NOFILE"
	if !slices.ContainsFunc(rlimits, func(r specs.POSIXRlimit) bool { return r.Type == files }) {
		rlimits = append(rlimits, specs.POSIXRlimit{Type: files, Soft: min(softFiles, host.MaxFiles), Hard: min(hardFiles, host.MaxFiles)})
	}
	return rlimits, nil
}
