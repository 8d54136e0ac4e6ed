package view

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Service describes a service in full. taken are the ports of its that Taken tells of.
func Service(e *warrenv1.ServiceEntry, taken []string, now time.Time) string {
	s, spec, progress := e.GetService(), e.GetService().GetSpec(), e.GetProgress()
	p := &page{}
	p.say("Name", spec.GetName())
	p.meta(s.GetMeta(), now)
	p.say("Mode", Mode(spec))
	p.say("Running", runningOf(progress))
	if s.GetRemoving() {
		p.say("Removing", "its tasks are being stopped")
	}
	p.say("Reason", progress.GetReason())
	p.say("Revision", strconv.FormatUint(s.GetRevision(), 10))
	p.amount("Previous revision", int64(s.GetPreviousRevision()))
	p.say("Written by", s.GetWrittenBy())
	p.rollout(s, now)
	p.pairs("Labels", spec.GetLabels())
	p.connections(s, taken)
	p.under("Placement", func() {
		p.list("Constraints", spec.GetPlacement().GetConstraints())
		p.list("Spread over", spec.GetPlacement().GetSpread())
		p.list("Platforms", spec.GetPlacement().GetPlatforms())
		p.amount("Tasks per node", int64(spec.GetPlacement().GetMaxReplicasPerNode()))
	})
	p.policy("Update", spec.GetUpdate())
	p.policy("Rollback", spec.GetRollback())
	p.say("On node loss", nodeLoss(spec.GetNodeLoss()))
	p.template(spec.GetTask())
	return p.String()
}

func runningOf(progress *warrenv1.ServiceProgress) string {
	said := fmt.Sprintf("%d of %s", progress.GetRunning(), count(int(progress.GetDesired()), "task", "tasks"))
	if progress.GetUpdated() != progress.GetRunning() {
		said += fmt.Sprintf(", %d of them up to date", progress.GetUpdated())
	}
	if n := progress.GetUnhealthy(); n > 0 {
		said += fmt.Sprintf(", %d unhealthy", n)
	}
	if n := silent(progress); n > 0 {
		said += fmt.Sprintf(", %d not serving", n)
	}
	if n := progress.GetStopping(); n > 0 {
		said += fmt.Sprintf(", %d stopping", n)
	}
	return said
}

// Task describes a task in full, with the template it is made from.
func Task(r *warrenv1.GetTaskResponse, now time.Time) string {
	t, s := r.GetEntry().GetTask(), r.GetEntry().GetTask().GetStatus()
	p := &page{}
	p.say("Name", TaskName(t, r.GetEntry().GetNodeHostname()))
	p.meta(t.GetMeta(), now)
	p.say("Service", t.GetServiceName())
	p.say("Revision", strconv.FormatUint(t.GetRevision(), 10))
	p.say("Node", r.GetEntry().GetNodeHostname())
	p.say("Desired state", capital(Desired(t.GetDesired())))
	p.flag("To be moved", t.GetDisplaced())
	p.say("Current state", CurrentState(s, now))
	p.say("Message", s.GetMessage())
	p.say("Error", s.GetError())
	p.amount("Attempt", int64(s.GetAttempt()))
	p.say("Started", when(s.GetStartedAt(), now))
	p.say("Address", s.GetAddress())
	p.say("Serving", serving(s))
	p.taskHealth(s, now)
	p.under("Last exit", func() {
		exit := s.GetExit()
		if exit == nil {
			return
		}
		p.say("Code", strconv.FormatUint(uint64(exit.GetCode()), 10))
		if exit.GetOomKilled() {
			p.say("Cause", "killed by the kernel: it used more memory than its limit")
		}
		p.say("At", when(exit.GetAt(), now))
		if out := strings.TrimRight(exit.GetLastOutput(), "\r\n"); out != "" {
			p.list("Last output", strings.Split(out, "\n"))
		}
	})
	p.say("Container", s.GetContainerId())
	p.amount("PID", int64(s.GetPid()))
	p.say("Image digest", s.GetImageDigest())
	p.template(r.GetSpec())
	return p.String()
}

// serving says whether new connections come to a task; nothing of one without an address.
func serving(s *warrenv1.TaskStatus) string {
	switch {
	case s.GetAddress() == "":
		return ""
	case s.GetServing():
		return "yes"
	}
	return "no"
}

// Node describes a node in full. peers are the others of the overlay as its agent sees them, or problem says why
// it does not tell.
func Node(e *warrenv1.NodeEntry, peers []*warrenv1.OverlayPeer, problem string, now time.Time) string {
	n, f := e.GetNode(), e.GetNode().GetFacts()
	p := &page{}
	p.say("Hostname", f.GetHostname())
	p.meta(n.GetMeta(), now)
	p.say("Status", capital(NodeState(n.GetStatus().GetState()))+" since "+when(n.GetStatus().GetSince(), now))
	p.say("Message", n.GetStatus().GetMessage())
	p.say("Availability", capital(Availability(n.GetSpec().GetAvailability())))
	if at := n.GetSpec().GetDrainDeadline(); at != nil {
		p.say("Drain deadline", at.AsTime().In(now.Location()).Format("2006-01-02 15:04:05 MST"))
	}
	p.say("Session from", n.GetStatus().GetAddr())
	p.list("Addresses", f.GetAddresses())
	p.pairs("Labels", n.GetSpec().GetLabels())
	p.pairs("Engine labels", f.GetEngineLabels())
	p.say("Tasks", strconv.FormatUint(uint64(e.GetTasks()), 10))
	p.under("Resources", func() {
		p.say("Processors", fmt.Sprintf("%s, %s reserved", CPUs(f.GetResources().GetNanoCpus()), CPUs(e.GetReserved().GetNanoCpus())))
		p.say("Memory", fmt.Sprintf("%s, %s reserved", Memory(f.GetResources().GetMemoryBytes()), Memory(e.GetReserved().GetMemoryBytes())))
		if f.GetDiskBytes() > 0 {
			p.say("Disk", fmt.Sprintf("%s, %s free", Memory(int64(f.GetDiskBytes())), Memory(int64(f.GetDiskFreeBytes()))))
		}
	})
	p.overlay(e, peers, problem, now)
	p.under("Machine", func() {
		p.say("Platform", f.GetOs()+"/"+f.GetArch())
		p.say("System", f.GetOsName())
		p.say("Kernel", f.GetKernel())
		p.amount("Control groups", int64(f.GetCgroupVersion()))
		p.say("Agent", f.GetAgentVersion())
		p.say("containerd", f.GetContainerdVersion())
		p.say("runc", f.GetRuncVersion())
	})
	return p.String()
}

// Cluster describes the cluster.
func Cluster(c *warrenv1.GetClusterResponse, now time.Time) string {
	spec := c.GetCluster().GetSpec()
	p := &page{}
	p.say("Name", spec.GetName())
	p.meta(c.GetCluster().GetMeta(), now)
	p.say("Nodes", fmt.Sprintf("%d, %d ready", c.GetNodes(), c.GetNodesReady()))
	p.say("Services", strconv.FormatUint(uint64(c.GetServices()), 10))
	p.say("Tasks", strconv.FormatUint(uint64(c.GetTasks()), 10))
	var managers []string
	for _, m := range c.GetManagers() {
		said := cmp.Or(m.GetHostname(), m.GetId())
		if m.GetAddr() != "" {
			said += " at " + m.GetAddr()
		}
		managers = append(managers, said+" ("+ManagerStatus(m)+")")
	}
	p.list("Managers", managers)
	if c.GetQuorum() > 0 {
		p.say("Quorum", Quorum(c))
	}
	if c.GetCaRotation() {
		p.say("CA", "being replaced: `warrenctl cluster ca rotate` shows how far it is")
	}
	p.say("Heartbeat interval", duration(spec.GetHeartbeatInterval()))
	p.say("Node grace", duration(spec.GetNodeGrace()))
	p.say("Restart grace", duration(spec.GetRestartGrace()))
	p.say("Certificate life", duration(spec.GetCertificateLife()))
	p.layout(spec.GetNetwork())
	if spec.GetAutolock() {
		p.say("Autolock", "on")
	}
	if spec != nil && spec.TaskHistory != nil {
		p.say("Task history", count(int(spec.GetTaskHistory()), "ended task", "ended tasks")+" for each slot")
	}
	return p.String()
}

// template adds what a task is made from.
func (p *page) template(t *warrenv1.TaskSpec) {
	p.under("Container", func() { p.container(t.GetContainer()) })
	if network := t.GetNetwork(); network != 0 {
		p.say("Network mode", word(network.String(), "NETWORK_MODE_"))
	}
	p.resources("Limits", t.GetLimits())
	p.resources("Reservations", t.GetReservations())
	p.under("Restart", func() {
		r := t.GetRestart()
		if r.GetCondition() != 0 {
			p.say("Condition", word(r.GetCondition().String(), "RESTART_CONDITION_"))
		}
		p.say("Delay", duration(r.GetDelay()))
		p.say("Longest delay", duration(r.GetMaxDelay()))
		if r != nil && r.MaxAttempts != nil {
			p.say("Attempts", strconv.FormatUint(uint64(r.GetMaxAttempts()), 10))
		}
		p.say("Window", duration(r.GetWindow()))
	})
	p.healthCheck(t.GetHealth())
	p.under("Log", func() {
		if size := t.GetLog().GetMaxSizeBytes(); size > 0 {
			p.say("File size", Memory(size))
		}
		p.amount("Files", int64(t.GetLog().GetMaxFiles()))
	})
}

func (p *page) container(c *warrenv1.ContainerSpec) {
	p.say("Image", c.GetImage())
	p.say("Entrypoint", quoted(c.GetCommand()))
	p.say("Arguments", quoted(c.GetArgs()))
	p.list("Environment", c.GetEnv())
	p.say("Working directory", c.GetWorkdir())
	p.say("User", c.GetUser())
	p.say("Groups", strings.Join(c.GetGroups(), ", "))
	p.say("Hostname", c.GetHostname())
	var mounts []string
	for _, m := range c.GetMounts() {
		mounts = append(mounts, mount(m))
	}
	p.list("Mounts", mounts)
	p.pairs("Labels", c.GetLabels())
	p.flag("Read-only root", c.GetReadOnly())
	p.flag("Init", c.GetInit())
	p.flag("Terminal", c.GetTty())
	p.flag("No new privileges", c.GetNoNewPrivileges())
	p.say("Capabilities added", strings.Join(c.GetCapAdd(), ", "))
	p.say("Capabilities dropped", strings.Join(c.GetCapDrop(), ", "))
	if c.GetSeccomp() == warrenv1.SeccompProfile_SECCOMP_PROFILE_UNCONFINED {
		p.say("Seccomp", "unconfined")
	}
	var limits []string
	for _, u := range c.GetUlimits() {
		limits = append(limits, fmt.Sprintf("%s=%d:%d", u.GetName(), u.GetSoft(), u.GetHard()))
	}
	p.list("Ulimits", limits)
	p.pairs("Sysctls", c.GetSysctls())
	p.say("Stop signal", c.GetStopSignal())
	p.say("Drain period", duration(c.GetDrainPeriod()))
	p.say("Stop grace period", duration(c.GetStopGracePeriod()))
}

func (p *page) resources(heading string, r *warrenv1.Resources) {
	p.under(heading, func() {
		if n := r.GetNanoCpus(); n > 0 {
			p.say("Processors", CPUs(n))
		}
		if n := r.GetMemoryBytes(); n > 0 {
			p.say("Memory", Memory(n))
		}
		p.amount("Processes", r.GetPids())
	})
}

func (p *page) meta(m *warrenv1.Meta, now time.Time) {
	p.say("ID", m.GetId())
	p.say("Created", when(m.GetCreatedAt(), now))
	p.say("Updated", when(m.GetUpdatedAt(), now))
}

// amount adds a number; 0 stands for not set and is left out.
func (p *page) amount(name string, n int64) {
	if n != 0 {
		p.say(name, strconv.FormatInt(n, 10))
	}
}

// flag adds a switch that is on.
func (p *page) flag(name string, on bool) {
	if on {
		p.say(name, "yes")
	}
}

// when writes a time with its age.
func when(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s)", t.AsTime().In(now.Location()).Format("2006-01-02 15:04:05 MST"), Ago(t, now))
}

// quoted writes a command line so that its words can be told apart.
func quoted(words []string) string {
	shown := make([]string, len(words))
	for i, w := range words {
		if shown[i] = w; w == "" || strings.ContainsAny(w, " \t\n\"'\\") {
			shown[i] = strconv.Quote(w)
		}
	}
	return strings.Join(shown, " ")
}

func mount(m *warrenv1.Mount) string {
	said := word(m.GetType().String(), "MOUNT_TYPE_")
	if m.GetSource() != "" {
		said += " " + m.GetSource() + " on"
	}
	said += " " + m.GetTarget()
	var options []string
	if m.GetReadOnly() {
		options = append(options, "read-only")
	}
	if m.GetTmpfsSizeBytes() > 0 {
		options = append(options, Memory(m.GetTmpfsSizeBytes()))
	}
	if m.GetTmpfsMode() > 0 {
		options = append(options, fmt.Sprintf("mode %o", m.GetTmpfsMode()))
	}
	if len(options) > 0 {
		said += " (" + strings.Join(options, ", ") + ")"
	}
	return said
}
