package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// standing collects how the manager itself stands.
type standing struct{ Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	leading     = desc("warren_raft_leading", "Whether this manager leads: 1 or 0.")
	managers    = desc("warren_raft_managers", "Managers of the cluster, as this one knows them.", "vote")
	term        = desc("warren_raft_term", "Raft's term: it grows with every election.")
	lastIndex   = desc("warren_raft_last_index", "The newest entry in this manager's log.")
	commitIndex = desc("warren_raft_commit_index", "The newest entry that this manager knows most managers to have.")
	appliedIdx  = desc("warren_raft_applied_index", "The newest entry that is in this manager's state.")
	waiting     = desc("warren_raft_waiting_proposals", "Proposals that wait for the leader to write what came before.")
	silence     = desc("warren_raft_leader_silence_seconds", "For how long this manager has heard nothing of the leader; 0 on the leader.")
	sessions    = desc("warren_sessions", "Agents that have a session with this manager: with the leader, or none.")
	expires     = desc("warren_certificate_expiry_timestamp_seconds", "Until when this manager's certificate is good.")
)

// Describe implements prometheus.Collector.
func (*standing) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{leading, managers, term, lastIndex, commitIndex, appliedIdx, waiting, silence, sessions, expires} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *standing) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(sessions, float64(s.Sessions()))
	if t := s.CertificateExpires(); !t.IsZero() {
		gauge(expires, float64(t.Unix()))
	}
	f, there := s.Raft()
	if !there {
		gauge(leading, 0)
		return
	}
	lead := 0.0
	if f.Leading {
		lead = 1
	}
	gauge(leading, lead)
	gauge(managers, float64(f.Voters), "yes")
	gauge(managers, float64(f.Members-f.Voters), "no")
	gauge(term, float64(f.Term))
	gauge(lastIndex, float64(f.LastIndex))
	gauge(commitIndex, float64(f.CommitIndex))
	gauge(appliedIdx, float64(f.AppliedIndex))
	gauge(waiting, float64(f.Waiting))
	gauge(silence, f.Silence.Seconds())
}
