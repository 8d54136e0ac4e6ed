// Package shares says which part of a service's new connections goes to which of its revisions. It follows from the service
// alone: from the record of its rollout, which says how far that has come.
package shares

import (
	"github.com/cuemby/warren/internal/manager/rollout/policy"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Of returns how a service's new connections are shared out; nil where all its serving tasks take them alike. A share of 0 is
// told as well: its revision takes what no other can.
func Of(service *warrenv1.Service) []*warrenv1.RevisionShare {
	r := service.GetRollout()
	switch {
	case policy.SideBySide(service):
	case r.GetState() == warrenv1.RolloutState_ROLLOUT_STATE_COMPLETE && r.GetKeepUntil() != nil:
		// The old tasks are kept and sent nothing.
	default:
		return nil
	}
	weight := min(r.GetWeight(), 100)
	return []*warrenv1.RevisionShare{
		{Revision: r.GetFrom(), Percent: 100 - weight},
		{Revision: r.GetTo(), Percent: weight},
	}
}
