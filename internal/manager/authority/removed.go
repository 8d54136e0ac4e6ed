package authority

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A member that was removed is remembered until every certificate it may hold has expired, and refused as
// long. The list thereby has no more members than were removed within the life of a certificate.

// removalMargin is how much longer a removed member is remembered: managers' clocks differ, and one that
// has not heard of a removal may still be renewing.
const removalMargin = time.Hour

// IsRemoved tells whether a member of that name was removed.
func IsRemoved(kept *statev1.Authority, name string) bool {
	return slices.ContainsFunc(kept.GetRemoved(), func(r *statev1.RemovedMember) bool { return r.GetName() == name })
}

// Remove adds to a transaction that a member is removed: its certificates are worth nothing from then on. Of a node is remembered as
// well what its machine called itself and what subnet it had.
func Remove(t *state.Transaction, s state.Snapshot, name string, now time.Time) {
	kept := s.Authority()
	if kept == nil || IsRemoved(kept, name) {
		return
	}
	node := s.Node(name)
	state.Update(t, kept, func(after *statev1.Authority) {
		after.Removed = slices.DeleteFunc(after.GetRemoved(), func(r *statev1.RemovedMember) bool {
			return now.After(r.GetUntil().AsTime())
		})
		after.Removed = append(after.Removed, &statev1.RemovedMember{
			Name: name, Until: timestamppb.New(RemovedUntil(kept, s.Cluster().GetSpec(), now)),
			Hostname: node.GetFacts().GetHostname(), Subnet: node.GetNetwork().GetSubnet(),
		})
	})
}

// RemovedUntil is how long a member that is removed now is to be remembered.
func RemovedUntil(kept *statev1.Authority, spec *warrenv1.ClusterSpec, now time.Time) time.Time {
	until := now.Add(life(spec))
	if longer := kept.GetLongerLivedUntil(); longer != nil && longer.AsTime().After(until) {
		until = longer.AsTime()
	}
	return until.Add(removalMargin)
}

// Respec adds to a transaction that changes the cluster's settings what follows for the authority. Where
// certificates are to be good for less long than they were, those that are out there go on for longer than
// the settings say from then on, and members that are removed must be remembered as long.
func Respec(t *state.Transaction, s state.Snapshot, to *warrenv1.ClusterSpec, now time.Time) {
	kept, before := s.Authority(), life(s.Cluster().GetSpec())
	if kept == nil || life(to) >= before {
		return
	}
	until := now.Add(before)
	if kept.GetLongerLivedUntil().AsTime().After(until) {
		return
	}
	state.Update(t, kept, func(after *statev1.Authority) { after.LongerLivedUntil = timestamppb.New(until) })
}
