package view

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

func meta(id string, created time.Duration) *warrenv1.Meta {
	return &warrenv1.Meta{Id: id, CreatedAt: ago(created), UpdatedAt: ago(created / 2)}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s shows otherwise (run with -update and look):\n%s", path, got)
	}
}

func table(t *testing.T, name string, table *output.Table) {
	t.Helper()
	for _, form := range []string{"table", "wide"} {
		var b bytes.Buffer
		if err := (output.ListFlags{Output: form}).List(output.Stream{Writer: &b}, table); err != nil {
			t.Fatal(err)
		}
		golden(t, name+"."+form, b.String())
	}
}

var spec = &warrenv1.ServiceSpec{
	Name:   "web",
	Labels: map[string]string{"team": "shop", "tier": "front"},
	Mode:   &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 3}},
	Task: &warrenv1.TaskSpec{
		Container: &warrenv1.ContainerSpec{
			Image: "nginx:1.27", Command: []string{"sh", "-c", "echo 'a b'"}, Env: []string{"A=1", "B=two words"},
			Mounts: []*warrenv1.Mount{
				{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: "/srv", Target: "/data", ReadOnly: true},
				{Type: warrenv1.MountType_MOUNT_TYPE_TMPFS, Target: "/tmp", TmpfsSizeBytes: 64 << 20, TmpfsMode: 0o1777},
			},
			ReadOnly: true, StopGracePeriod: durationpb.New(30 * time.Second),
			Ulimits: []*warrenv1.Ulimit{{Name: "nofile", Soft: 1024, Hard: -1}},
		},
		Limits:  &warrenv1.Resources{NanoCpus: 1.5e9, MemoryBytes: 512 << 20},
		Network: warrenv1.NetworkMode_NETWORK_MODE_HOST,
		Restart: &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE, Delay: durationpb.New(2 * time.Second)},
	},
	Placement: &warrenv1.Placement{Constraints: []string{"node.labels.zone==eu", "node.platform.os==linux"}},
	Update:    &warrenv1.UpdatePolicy{Parallelism: 2, Order: warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST},
}

func TestServicesAsPeopleSeeThem(t *testing.T) {
	web := &warrenv1.ServiceEntry{
		Service:  &warrenv1.Service{Meta: meta("abcdefghijklmnop", 3*time.Hour), Spec: spec, Revision: 2},
		Progress: &warrenv1.ServiceProgress{Desired: 3, Running: 2, Serving: 2, Updated: 1, Stopping: 1, Reason: "2 nodes: 1 lacks 512 MiB, 1 drained"},
	}
	table(t, "services", Services([]*warrenv1.ServiceEntry{
		web,
		{
			Service: &warrenv1.Service{Meta: meta("bcdefghijklmnopa", 10*time.Second), Removing: true, Spec: &warrenv1.ServiceSpec{
				Name: "everywhere", Mode: &warrenv1.ServiceSpec_Global{Global: &warrenv1.GlobalMode{}},
				Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "agent"}},
			}},
			Progress: &warrenv1.ServiceProgress{Desired: 0},
		},
		connected,
	}, now))
	golden(t, "service", Service(web, nil, now))
	taken := Taken(connected.GetService(), []*warrenv1.NodeEntry{{Node: &warrenv1.Node{
		Facts: &warrenv1.NodeFacts{Hostname: "n1"},
		Status: &warrenv1.NodeStatus{Overlay: &warrenv1.OverlayStatus{TakenPorts: []*warrenv1.TakenPort{
			{Port: 8081, By: "nginx"}, {Port: 8081, Protocol: warrenv1.Protocol_PROTOCOL_UDP}, {Port: 30000, Protocol: warrenv1.Protocol_PROTOCOL_UDP}, {Port: 80},
		}}},
	}}})
	golden(t, "connected", Service(connected, taken, now))
}

// connected is a service with all that one can be reached by.
var connected = &warrenv1.ServiceEntry{
	Service: &warrenv1.Service{
		Meta: meta("cdefghijklmnopab", time.Minute), Revision: 1,
		Spec: &warrenv1.ServiceSpec{
			Name: "shop",
			Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 1}},
			Task: &warrenv1.TaskSpec{
				Container: &warrenv1.ContainerSpec{Image: "shop:2", DrainPeriod: durationpb.New(20 * time.Second)},
				HostPorts: []*warrenv1.PortSpec{{Target: 9100, Published: 9100}},
			},
			Networks: []*warrenv1.NetworkAttachment{{Network: "front", Aliases: []string{"www", "web"}}, {Network: "back"}},
			Endpoint: &warrenv1.EndpointSpec{Ports: []*warrenv1.PortSpec{
				{Target: 80, Published: 8080, Name: "http"}, {Target: 81, Published: 8081}, {Target: 53, Protocol: warrenv1.Protocol_PROTOCOL_UDP},
				{Target: 443}, {Target: 90, Published: 8082},
			}},
		},
		Endpoint: &warrenv1.ServiceEndpoint{
			Vip: "10.224.0.7",
			Ports: []*warrenv1.PublishedPort{
				{Target: 80, Published: 8080, Name: "http"}, {Target: 81, Published: 8081}, {Target: 53, Published: 30000, Protocol: warrenv1.Protocol_PROTOCOL_UDP},
			},
			Problems: []string{"port 443/tcp: no port from 30000 to 32767 is free"},
		},
	},
	Progress: &warrenv1.ServiceProgress{Desired: 1, Running: 1, Serving: 1, Updated: 1, Converged: true},
}

func TestTasksAsPeopleSeeThem(t *testing.T) {
	task := func(id string, slot uint32, created time.Duration, desired warrenv1.DesiredState, status *warrenv1.TaskStatus) *warrenv1.TaskEntry {
		return &warrenv1.TaskEntry{
			Task: &warrenv1.Task{
				Meta: meta(id, created), ServiceName: "web", Slot: slot, NodeId: "nodeid", Desired: desired, Status: status, Revision: 1,
			},
			NodeHostname: "n1", Image: "nginx:1.27",
		}
	}
	entries := []*warrenv1.TaskEntry{
		task("oldoldoldoldoldo", 1, 2*time.Hour, warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN, &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_FAILED, Since: ago(time.Hour), Attempt: 3, Error: "exit code 1",
			Exit: &warrenv1.TaskExit{Code: 1, At: ago(time.Hour), LastOutput: "loading\nno database: \x1b[31mconnection refused\n"},
		}),
		task("newnewnewnewnewn", 1, time.Hour, warrenv1.DesiredState_DESIRED_STATE_RUNNING, &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_RUNNING, Since: ago(3 * time.Minute), Attempt: 2, Pid: 4711, ContainerId: "c1", ImageDigest: "sha256:abcdef", Address: "10.208.3.7", Serving: true,
		}),
		task("pendingpendingpe", 2, time.Minute, warrenv1.DesiredState_DESIRED_STATE_RUNNING, &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_PENDING, Since: ago(time.Minute), Message: "3 nodes: 2 lack 512 MiB, 1 drained",
		}),
		task("rejectedrejected", 0, time.Minute, warrenv1.DesiredState_DESIRED_STATE_RUNNING, &warrenv1.TaskStatus{
			State: warrenv1.TaskState_TASK_STATE_REJECTED, Since: ago(time.Second), Error: "pull nginx:1.27: not found",
		}),
	}
	entries[2].NodeHostname = ""
	table(t, "tasks", Tasks(entries, now))
	golden(t, "task", Task(&warrenv1.GetTaskResponse{Entry: entries[0], Spec: spec.GetTask()}, now))
}

// A replacement that a drain had asked for, and that was taken back, is newer than the task that has stayed.
func TestWhatASlotHasStandsBeforeWhatItHad(t *testing.T) {
	task := func(id string, created time.Duration, state warrenv1.TaskState) *warrenv1.TaskEntry {
		return &warrenv1.TaskEntry{Task: &warrenv1.Task{Meta: meta(id, created), ServiceName: "web", Slot: 1, Status: &warrenv1.TaskStatus{State: state}}}
	}
	var order []string
	for _, row := range Tasks([]*warrenv1.TaskEntry{
		task("takenback", time.Minute, warrenv1.TaskState_TASK_STATE_SHUTDOWN), task("stays", time.Hour, warrenv1.TaskState_TASK_STATE_RUNNING),
		task("before", 2*time.Hour, warrenv1.TaskState_TASK_STATE_FAILED),
	}, now).Rows {
		order = append(order, row.ID)
	}
	if want := []string{"stays", "takenback", "before"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

func TestNodesAsPeopleSeeThem(t *testing.T) {
	n1 := &warrenv1.NodeEntry{
		Node: &warrenv1.Node{
			Meta:   meta("nodenodenodenode", 48*time.Hour),
			Spec:   &warrenv1.NodeSpec{Labels: map[string]string{"zone": "eu"}, Availability: warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN},
			Status: &warrenv1.NodeStatus{State: warrenv1.NodeState_NODE_STATE_UNKNOWN, Since: ago(2 * time.Second), Message: "its session broke", Addr: "10.0.0.1:5123"},
			Facts: &warrenv1.NodeFacts{
				Hostname: "n1", Os: "linux", Arch: "arm64", OsName: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0", CgroupVersion: 2,
				Resources: &warrenv1.Resources{NanoCpus: 4e9, MemoryBytes: 8 << 30}, DiskBytes: 100 << 30, DiskFreeBytes: 40 << 30,
				AgentVersion: "0.1.0", ContainerdVersion: "1.6.20", RuncVersion: "1.1.5", Addresses: []string{"10.0.0.1", "fd00::1"},
			},
		},
		Tasks: 7, Reserved: &warrenv1.Resources{NanoCpus: 2.5e9, MemoryBytes: 1 << 30},
	}
	n1.Node.Network = &warrenv1.NodeNetwork{Subnet: "10.208.3.0/24"}
	n1.Node.Status.Overlay = &warrenv1.OverlayStatus{
		State: warrenv1.OverlayState_OVERLAY_STATE_UP, Kind: warrenv1.WireGuardKind_WIRE_GUARD_KIND_USERSPACE, PublicKey: "bm90IGEga2V5=",
		ListenPort: 7421, Mtu: 1420, TakenPorts: []*warrenv1.TakenPort{{Port: 22, By: "sshd"}, {Port: 53, Protocol: warrenv1.Protocol_PROTOCOL_UDP}},
	}
	n1.Node.Spec.WireguardEndpoint = "203.0.113.7:7421"
	table(t, "nodes", Nodes([]*warrenv1.NodeEntry{n1}, nil, now))
	golden(t, "node", Node(n1, []*warrenv1.OverlayPeer{
		{Hostname: "n2", NodeId: "n2", Endpoint: "[2001:db8::7]:7421", Subnet: "10.208.4.0/24", LastHandshake: ago(time.Minute), ReceivedBytes: 3 << 20, SentBytes: 100},
		{NodeId: "n3"},
	}, "", now))
	n1.Node.Status.Overlay = &warrenv1.OverlayStatus{State: warrenv1.OverlayState_OVERLAY_STATE_FAILED, Error: "open /dev/net/tun: no such file"}
	golden(t, "node-failed", Node(n1, nil, "its agent does not answer", now))
}

func TestNetworksAsPeopleSeeThem(t *testing.T) {
	front := &warrenv1.NetworkEntry{
		Network:      &warrenv1.Network{Meta: meta("front", time.Hour), Spec: &warrenv1.NetworkSpec{Name: "front", Labels: map[string]string{"b": "2", "a": "1"}}},
		ServiceCount: 2, Services: []string{"shop", "web"},
	}
	bare := &warrenv1.NetworkEntry{Network: &warrenv1.Network{Meta: &warrenv1.Meta{Id: "default"}, Spec: &warrenv1.NetworkSpec{Name: "default"}}}
	table(t, "networks", Networks([]*warrenv1.NetworkEntry{bare, front}, now))
	golden(t, "network", Network(front, now)+"\n"+Network(bare, now))
}

// ping is what came of five pings.
func ping(to string, received uint32, average time.Duration) *warrenv1.Ping {
	p := &warrenv1.Ping{NodeId: to, Hostname: to, Address: "10.208.0." + to[1:], Sent: 5, Received: received}
	if received > 0 {
		p.Min, p.Average, p.Max = durationpb.New(average/2), durationpb.New(average), durationpb.New(2*average)
	}
	return p
}

func TestTheOverlayAsPeopleSeeIt(t *testing.T) {
	unreachable := ping("n4", 0, 0)
	unreachable.Sent, unreachable.Address, unreachable.Error = 0, "", "the node has no subnet yet"
	check := NewCheck([]*warrenv1.CheckNetworkResponse{
		{NodeId: "n2", Hostname: "n2", Pings: []*warrenv1.Ping{ping("n1", 5, 420*time.Microsecond), ping("n3", 0, 0), unreachable}},
		{NodeId: "n1", Hostname: "n1", Pings: []*warrenv1.Ping{ping("n3", 4, 123*time.Millisecond), ping("n2", 5, 12*time.Millisecond), unreachable}},
		{NodeId: "n3", Hostname: "n3", Error: "its agent does not answer", Pings: []*warrenv1.Ping{{NodeId: "n1", Hostname: "n1", Error: "was not tried"}}},
	})
	table(t, "check", check.Matrix())
	table(t, "pairs", check.Pairs())
	golden(t, "check-summary", strings.Join(append([]string{check.Summary()}, check.Holes()...), "\n")+"\n")
	if got := NewCheck([]*warrenv1.CheckNetworkResponse{{NodeId: "n1", Hostname: "n1"}}); got.Summary() != "1 node: there is nothing to ping." || len(got.Holes()) > 0 {
		t.Errorf("of one node: %s %v", got.Summary(), got.Holes())
	}
}

func TestOfManyNodesOnlyWhatIsNotWholeIsShown(t *testing.T) {
	var rows []*warrenv1.CheckNetworkResponse
	for i := range widestMatrix + 1 {
		rows = append(rows, &warrenv1.CheckNetworkResponse{NodeId: fmt.Sprint("n", i), Hostname: fmt.Sprint("n", i)})
		for j := range widestMatrix + 1 {
			if i != j {
				rows[i].Pings = append(rows[i].Pings, ping(fmt.Sprint("n", j), uint32(5-5*(i/widestMatrix)*(j/3%2)), time.Millisecond))
			}
		}
	}
	check := NewCheck(rows)
	if got := len(check.Matrix().Rows); got == 0 || got != len(check.Holes()) {
		t.Errorf("%d pairs shown, %d holes", got, len(check.Holes()))
	}
}

func TestTheClusterAsPeopleSeeIt(t *testing.T) {
	history := uint32(5)
	golden(t, "cluster", Cluster(&warrenv1.GetClusterResponse{
		Cluster: &warrenv1.Cluster{
			Meta: meta("clusterclustercl", 30*24*time.Hour),
			Spec: &warrenv1.ClusterSpec{
				Name: "shop", NodeGrace: durationpb.New(3500 * time.Millisecond), TaskHistory: &history,
				Network: &warrenv1.ClusterNetwork{NodeRange: "10.208.0.0/12", NodePrefix: 24, VipRange: "10.224.0.0/16", WireguardPort: 7421, KeyLife: durationpb.New(720 * time.Hour)},
			},
		},
		Managers: []*warrenv1.Manager{{Id: "m1", Addr: "10.0.0.1:7400", Leader: true}, {Id: "m2"}},
		Nodes:    3, NodesReady: 2, Services: 4, Tasks: 12,
	}, now))
}

func TestAClockThatIsBehindMakesNoNegativeAges(t *testing.T) {
	if got := Ago(timestamppb.New(now.Add(time.Hour)), now); got != "less than a second ago" {
		t.Errorf("an hour ahead is %q", got)
	}
}
