package view_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var today = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(today.Add(d)) }

const day = 24 * time.Hour

// sound is a cluster with nothing to warn of: three managers, three nodes.
func sound() view.Facts {
	f := view.Facts{
		Cluster: &warrenv1.GetClusterResponse{
			Cluster: &warrenv1.Cluster{Meta: &warrenv1.Meta{Id: "c1"}, Spec: &warrenv1.ClusterSpec{
				Name: "shop", CertificateLife: durationpb.New(30 * day), Network: &warrenv1.ClusterNetwork{NodeRange: "10.208.0.0/12", NodePrefix: 24, VipRange: "10.224.0.0/16"},
			}},
			Quorum: 2, ManagersReachable: 3,
		},
		Trust: &warrenv1.Trust{Authorities: []*warrenv1.CertificateAuthority{{ExpiresAt: after(1000 * day)}}},
		Tasks: []*warrenv1.TaskEntry{
			{Task: &warrenv1.Task{Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING}}},
			{Task: &warrenv1.Task{Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_RUNNING}}},
			{Task: &warrenv1.Task{Status: &warrenv1.TaskStatus{State: warrenv1.TaskState_TASK_STATE_FAILED}}},
		},
	}
	for i, host := range []string{"m1", "m2", "m3"} {
		f.Cluster.Managers = append(f.Cluster.Managers, &warrenv1.Manager{
			Hostname: host, Voter: true, Reachable: true, Leader: i == 0, Version: "1.0.0", CertificateExpiresAt: after(16 * day),
		})
		f.Nodes = append(f.Nodes, &warrenv1.NodeEntry{
			Node: &warrenv1.Node{
				Facts:  &warrenv1.NodeFacts{Hostname: host, AgentVersion: "1.0.0", Resources: &warrenv1.Resources{NanoCpus: 4e9, MemoryBytes: 8 << 30}},
				Status: &warrenv1.NodeStatus{State: warrenv1.NodeState_NODE_STATE_READY, CertificateExpiresAt: after(16 * day)},
			},
			Reserved: &warrenv1.Resources{NanoCpus: 5e8, MemoryBytes: 1 << 30},
		})
	}
	return f
}

func TestWhatShouldNotStayAsItIsIsWarnedOf(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*view.Facts)
		want   []string // the beginnings of the warnings
	}{
		"nothing": {func(*view.Facts) {}, nil},
		"an even number of managers": {func(f *view.Facts) {
			f.Cluster.Managers = append(f.Cluster.Managers, &warrenv1.Manager{Hostname: "m4", Voter: true, Reachable: true, Version: "1.0.0"})
			f.Cluster.Quorum, f.Cluster.ManagersReachable = 3, 4
		}, []string{"4 managers survive the loss of no more than 3 do"}},
		"no manager to spare": {func(f *view.Facts) { f.Cluster.ManagersReachable = 2 }, []string{"no manager may be lost any more: 2 of 3 are reachable, and 2 are needed"}},
		"no quorum":           {func(f *view.Facts) { f.Cluster.ManagersReachable = 1 }, []string{"the quorum is lost: 1 of 3"}},
		"one manager": {func(f *view.Facts) {
			f.Cluster.Managers = f.Cluster.Managers[:1]
			f.Cluster.Quorum, f.Cluster.ManagersReachable = 1, 1
		}, []string{"there is one manager"}},
		"several versions":        {func(f *view.Facts) { f.Nodes[2].Node.Facts.AgentVersion = "0.9.0" }, []string{"the cluster runs several versions: 0.9.0, 1.0.0"}},
		"a node that is down":     {func(f *view.Facts) { f.Nodes[1].Node.Status.State = warrenv1.NodeState_NODE_STATE_DOWN }, []string{"m2 is down: see `warrenctl why node"}},
		"a CA near its end":       {func(f *view.Facts) { f.Trust.Authorities[0].ExpiresAt = after(50 * day) }, []string{"the CA's certificate ends in 7 weeks"}},
		"a CA past its end":       {func(f *view.Facts) { f.Trust.Authorities[0].ExpiresAt = after(-day) }, []string{"the CA's certificate has expired"}},
		"nothing known of the CA": {func(f *view.Facts) { f.Trust = nil }, nil},
		"certificates that were not renewed": {func(f *view.Facts) {
			f.Nodes[0].Node.Status.CertificateExpiresAt = after(2 * day)
			f.Cluster.Managers[2].CertificateExpiresAt = after(-day)
		}, []string{"certificates that were not renewed in time: manager m3 (expired 24 hours ago), node m1 (ends in 2 days)"}},
	} {
		f := sound()
		c.change(&f)
		got := view.NewSystem(f, today).Warnings
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: warned of %q", name, got)
		}
	}
}

func TestThePageAboutTheClusterCountsWhatThereIs(t *testing.T) {
	p := view.NewSystem(sound(), today)
	text := p.String()
	for _, want := range []string{
		"Cluster:                shop (c1)", "Version 1.0.0:          3 managers, 3 nodes", "Nodes:                  3 ready", "Tasks:                  2 running, 1 failed",
		"Processors:             1.5 of 12 reserved", "Memory:                 3GiB of 24GiB reserved", "10.208.0.0/12, a /24 for each", "CA:                     ends 2029-08-22", "1 may be lost",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestUsageIsSortedTheLargestFirst(t *testing.T) {
	u := &view.Usage{}
	u.Hear(&warrenv1.WatchUsageResponse{Nodes: 2})
	for host, cpu := range map[string]int64{"n1": 1e9, "n2": 2e9, "n3": 5e8} {
		u.Hear(&warrenv1.WatchUsageResponse{NodeId: host, Hostname: host, Usage: &warrenv1.NodeUsage{
			NanoCpus: cpu, TotalNanoCpus: 4e9, MemoryBytes: uint64(4e9 - cpu), TotalMemoryBytes: 4e9,
			Tasks: []*warrenv1.TaskUsage{{TaskId: "t" + host, Name: "web." + host[1:], NanoCpus: cpu}},
		}})
	}
	u.Hear(&warrenv1.WatchUsageResponse{NodeId: "n3", Gone: true})
	for by, want := range map[string]string{"cpu": "n2 n1", "memory": "n1 n2", "name": "n1 n2"} {
		var got []string
		for _, row := range u.Nodes(by).Rows {
			got = append(got, row.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("by %s: %v", by, got)
		}
	}
	if rows := u.Tasks("cpu").Rows; len(rows) != 2 || rows[0].Name != "web.2" {
		t.Errorf("tasks %v", rows)
	}
	if got := u.Summary(); got != "2 nodes, 2 tasks; processors 3.00 of 8 busy, memory 4.657GiB of 7.451GiB used" {
		t.Error(got)
	}
}
