package events

import (
	"cmp"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Actions are the actions that events have.
var Actions = []string{
	"activated", "assigned", "ca-rotated", "ca-rotation-started", "complete", "created", "disconnected", "displaced", "down", "drain-complete", "drained",
	"failed", "healthy", "lost", "paused", "preparing", "ready", "readdressed", "rejected", "removed", "removing", "restarted", "rollback-started",
	"rolled-back", "rollout-abandoned", "rollout-complete", "rollout-held", "rollout-paused", "rollout-promoted", "rollout-released", "rollout-resumed",
	"rollout-started", "rollout-waiting", "rollout-weighted", "running", "scaled", "shutdown", "starting", "stopping", "unhealthy", "unknown", "updated",
	"upgraded", "waiting",
}

// manager tells of managers that come, go, or are not what they were. That they renew their certificates is no news.
func (w *words) manager(before, m *statev1.Member, removed bool) {
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_MANAGER, "manager", m.GetMeta().GetId(), cmp.Or(m.GetHostname(), m.GetMeta().GetId()))
	switch {
	case removed:
		say("removed", "removed")
		return
	case before == nil:
		say("created", "joined the cluster")
		return
	}
	if m.GetVersion() != before.GetVersion() {
		say("upgraded", "runs version %s, before %s", m.GetVersion(), before.GetVersion())
	}
	if m.GetAddr() != before.GetAddr() {
		say("readdressed", "is at %s, before at %s", m.GetAddr(), before.GetAddr())
	}
}

// authority tells when the CA is replaced.
func (w *words) authority(before, a *statev1.Authority, removed bool) {
	c := w.snapshot.Cluster()
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_CLUSTER, "cluster", c.GetMeta().GetId(), c.GetSpec().GetName())
	switch was, is := before.GetRotationStartedAt() != nil, a.GetRotationStartedAt() != nil; {
	case removed || before == nil:
	case is && !was:
		say("ca-rotation-started", "is given a new CA")
	case was && !is:
		say("ca-rotated", "trusts its new CA alone")
	}
}

// user tells of users that are admitted and removed.
func (w *words) user(before, u *warrenv1.User, removed bool) {
	say := w.about(warrenv1.EventObject_EVENT_OBJECT_USER, "user", u.GetMeta().GetId(), u.GetMeta().GetId())
	role := word(u.GetRole().String(), "ROLE_")
	switch {
	case removed:
		say("removed", "removed")
	case before == nil:
		say("created", "admitted as %s", role)
	case u.GetRole() != before.GetRole():
		say("updated", "is %s now", role)
	}
}
