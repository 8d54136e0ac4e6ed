package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// seen is what the actor tells of itself.
type seen struct {
	Args, Env  []string
	Cwd        string
	UID, GID   int
	Groups     []int
	Hostname   string
	Status     map[string]string
	Core       struct{ Cur, Max uint64 }
	Hosts      string
	ResolvConf string
	Mounts     string
	Interfaces []string
	Sysctl     string
}

// show runs a container that tells of itself.
func (b *bench) show(c Container) seen {
	b.t.Helper()
	b.run(c)
	if e := b.exit(c.ID); e.Code != 0 {
		b.t.Fatalf("exit %+v: %s", e, b.output(c.TaskID))
	}
	var s seen
	if err := json.Unmarshal([]byte(b.output(c.TaskID)), &s); err != nil {
		b.t.Fatalf("%v in %s", err, b.output(c.TaskID))
	}
	return s
}

func TestAContainerRunsItsProgramAndItsExitIsTold(t *testing.T) {
	b := newBench(t)
	c := b.container("hello", "exit", "7")
	created, err := b.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	started, err := b.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if created.Pid == 0 || started.Pid != created.Pid {
		t.Errorf("pid %d when created, %d when started", created.Pid, started.Pid)
	}
	e := b.exit(c.ID)
	if e.Code != 7 || e.OOMKilled || e.At.IsZero() {
		t.Errorf("exit %+v", e)
	}
	if got := b.output("hello"); got != "exiting with 7\n" {
		t.Errorf("output %q", got)
	}
	if got := b.store.Tail("hello", time.Time{}, 5, 2048); got != "exiting with 7" {
		t.Errorf("tail %q", got)
	}
	found, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].State != StateStopped || found[0].Exit == nil || found[0].Exit.Code != 7 ||
		found[0].TaskID != "hello" || found[0].Attempt != 1 || found[0].StartedAt.IsZero() || found[0].ImageDigest != b.image.Digest {
		t.Errorf("listed %+v", found)
	}
	if err := b.Signal(t.Context(), c.ID, syscall.SIGTERM); err != nil {
		t.Errorf("signal to an ended container: %v", err)
	}
	for range 2 {
		if err := b.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	b.assertGone(c.ID)
	if got := b.output("hello"); got == "" {
		t.Error("removing the container removed its output")
	}
	if err := b.Signal(t.Context(), c.ID, syscall.SIGTERM); err != nil {
		t.Errorf("signal to a removed container: %v", err)
	}
}

func TestARunningContainerGetsSignalsAndIsKilledByRemove(t *testing.T) {
	b := newBench(t)
	c := b.container("sleeper")
	b.run(c)
	b.awaitOutput("sleeper", "ready")
	if s, err := b.StopSignal(t.Context(), c.ID); err != nil || s != syscall.SIGINT {
		t.Errorf("stop signal %v %v, want the image's", s, err)
	}
	if err := b.Signal(t.Context(), c.ID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	b.awaitOutput("sleeper", "got user defined signal 1")
	if err := b.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	b.assertGone(c.ID)
}

func TestCreateReplacesWhatIsLeftOfTheSameID(t *testing.T) {
	b := newBench(t)
	c := b.container("again", "echo", "twice")
	for range 2 {
		if _, err := b.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	// A snapshot without its container, and the other way round.
	ctx := b.context(t.Context())
	if err := b.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.SnapshotService("overlayfs").Prepare(ctx, c.ID, ""); err != nil {
		t.Fatal(err)
	}
	b.run(c)
	b.exit(c.ID)
	if got := b.output("again"); got != "twice\n" {
		t.Errorf("output %q", got)
	}
}

func TestTheTemplateReachesTheProgram(t *testing.T) {
	b := newBench(t)
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("from the node\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := b.container("full", "show", "more")
	c.Spec.Container = &warrenv1.ContainerSpec{
		Image: b.image.Name, Command: []string{"/bin/actor", "show"}, Args: []string{"more"},
		Env:     []string{"COLOUR=blue", "WHO={{.Service.Name}}/{{.Task.Slot}}/{{ .Task.ID }}/{{.Node.Hostname}}/{{.Node.ID}}"},
		Workdir: "/made/for/this", User: "app", Groups: []string{"audio", "3000"}, Hostname: "{{.Service.Name}}-{{.Task.Slot}}",
		Mounts: []*warrenv1.Mount{
			{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: source, Target: "/data", ReadOnly: true},
			{Type: warrenv1.MountType_MOUNT_TYPE_TMPFS, Target: "/scratch", TmpfsSizeBytes: 1 << 20},
		},
		Labels: map[string]string{"team": "green"}, ReadOnly: true,
		CapAdd: []string{"net_admin"}, CapDrop: []string{"ALL"},
		Ulimits: []*warrenv1.Ulimit{{Name: "core", Soft: 2000, Hard: 3000}},
		Sysctls: map[string]string{"net.core.somaxconn": "1234"}, StopSignal: "TERM", NoNewPrivileges: true,
	}
	c.Spec.Limits = &warrenv1.Resources{NanoCpus: 1_500_000_000, MemoryBytes: 64 << 20, Pids: 50}
	c.Spec.Reservations = &warrenv1.Resources{NanoCpus: 500_000_000}
	s := b.show(c)
	want := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	want("args", s.Args, []string{"/bin/actor", "show", "more"})
	want("cwd", s.Cwd, "/made/for/this")
	want("uid", s.UID, 1000)
	want("gid", s.GID, 1001)
	want("groups", s.Groups, []int{2000, 2001, 3000})
	want("hostname", s.Hostname, "web-3")
	want("core limit", s.Core, "{2000 3000}")
	want("bounding set", s.Status["CapBnd"], fmt.Sprintf("%016x", 1<<12))
	want("no new privileges", s.Status["NoNewPrivs"], 1)
	want("seccomp", s.Status["Seccomp"], 2)
	want("somaxconn", s.Sysctl, 1234)
	want("interfaces", s.Interfaces, "[lo up|loopback|running]")
	for _, variable := range []string{"FROM=image", "COLOUR=blue", "WHO=web/3/full/machine/node1", "HOSTNAME=web-3", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} {
		if !strings.Contains("\n"+strings.Join(s.Env, "\n")+"\n", "\n"+variable+"\n") {
			t.Errorf("no %s in %q", variable, s.Env)
		}
	}
	if !strings.Contains(s.Hosts, "127.0.0.1\tlocalhost web-3") {
		t.Errorf("hosts %q", s.Hosts)
	}
	for _, line := range []string{" / overlay ro", " /data ", " /scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k", " /etc/hosts ", " /etc/hostname "} {
		if !strings.Contains(s.Mounts, line) {
			t.Errorf("no %q in %s", line, s.Mounts)
		}
	}
	if b.cgroups == 1 {
		for file, value := range map[string]string{
			"cpu/%s/cpu.shares": "512", "cpu/%s/cpu.cfs_quota_us": "150000", "pids/%s/pids.max": "50",
			"memory/%s/memory.limit_in_bytes": "67108864", "memory/%s/memory.memsw.limit_in_bytes": "67108864",
		} {
			text, err := os.ReadFile(filepath.Join(cgroupRoot, fmt.Sprintf(file, b.options.CgroupParent+"/"+c.ID)))
			if err != nil {
				t.Error(err)
			}
			want(file, strings.TrimSpace(string(text)), value)
		}
	}
	if signal, err := b.StopSignal(t.Context(), c.ID); err != nil || signal != syscall.SIGTERM {
		t.Errorf("stop signal %v %v", signal, err)
	}
	record, err := b.client.ContainerService().Get(b.context(t.Context()), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	want("labels", record.Labels["team"]+" "+record.Labels[labelTask]+" "+record.Labels[labelAttempt]+" "+record.Labels[labelService], "green full 1 service")
}

func TestDefaultsAreThoseUsersKnow(t *testing.T) {
	b := newBench(t)
	s := b.show(b.container("plain", "show"))
	if s.UID != 0 || s.Hostname != "plain" || s.Cwd != "/" || s.Status["NoNewPrivs"] != "0" || s.Status["Seccomp"] != "2" {
		t.Errorf("%+v", s)
	}
	if s.Status["CapEff"] != "00000000a80425fb" {
		t.Errorf("capabilities %s, want Docker's default set", s.Status["CapEff"])
	}
	if !strings.Contains(s.Mounts, "/sys/fs/cgroup") {
		t.Error("programs cannot see their limits: no cgroup mount")
	}
	c := b.container("open", "show")
	c.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_HOST
	c.Spec.Container.Seccomp = warrenv1.SeccompProfile_SECCOMP_PROFILE_UNCONFINED
	s = b.show(c)
	if s.Status["Seccomp"] != "0" {
		t.Errorf("seccomp %s", s.Status["Seccomp"])
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil || s.Hosts != string(hosts) {
		t.Errorf("hosts %q, want the node's (%v)", s.Hosts, err)
	}
}

func TestATerminalIsGiven(t *testing.T) {
	b := newBench(t)
	c := b.container("terminal", "echo", "on a terminal")
	c.Spec.Container.Tty = true
	b.run(c)
	b.exit(c.ID)
	if got := b.output("terminal"); got != "on a terminal\r\n" {
		t.Errorf("output %q", got)
	}
}

func TestAnInitReapsForwardsAndPassesTheCodeOn(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		id     string
		args   []string
		signal syscall.Signal
		code   uint32
		output string
	}{
		{id: "reap", args: []string{"orphan"}, output: "reaped, and I am process"},
		{id: "code", args: []string{"exit", "9"}, code: 9},
		{id: "forward", args: []string{"sleep"}, signal: syscall.SIGTERM, output: "got terminated"},
		{id: "missing", args: nil, code: 127, output: "cannot run nosuch"},
	} {
		t.Run(test.id, func(t *testing.T) {
			c := b.container(test.id, test.args...)
			c.Spec.Container.Init = true
			c.Spec.Container.ReadOnly = true
			if test.args == nil {
				c.Spec.Container.Command = []string{"nosuch"}
			}
			b.run(c)
			if test.signal != 0 {
				b.awaitOutput(test.id, "ready")
				if err := b.Signal(t.Context(), c.ID, test.signal); err != nil {
					t.Fatal(err)
				}
			}
			if e := b.exit(c.ID); e.Code != test.code {
				t.Errorf("exit %+v, want code %d", e, test.code)
			}
			if got := b.output(test.id); !strings.Contains(got, test.output) || strings.Contains(got, "process 1\n") {
				t.Errorf("output %q", got)
			}
		})
	}
}

func TestRunningOutOfMemoryIsToldAsThat(t *testing.T) {
	b := newBench(t)
	c := b.container("hungry", "eat")
	c.Spec.Limits = &warrenv1.Resources{MemoryBytes: 32 << 20}
	b.run(c)
	if e := b.exit(c.ID); e.Code != 137 || !e.OOMKilled {
		t.Errorf("exit %+v", e)
	}
	found, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Exit == nil || !found[0].Exit.OOMKilled {
		t.Errorf("listed %+v", found)
	}
}

func TestBadTemplatesAreRefusedWithTheFieldAndTheRemedy(t *testing.T) {
	b := newBench(t)
	base := b.container("bad", "sleep")
	for _, test := range []struct {
		name   string
		change func(*warrenv1.TaskSpec)
		want   string
	}{
		{"a bind of nothing", func(s *warrenv1.TaskSpec) {
			s.Container.Mounts = []*warrenv1.Mount{{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: "/no/such", Target: "/data"}}
		}, "mount /data: /no/such does not exist on this node: create it there"},
		{"a program that is not there", func(s *warrenv1.TaskSpec) {
			s.Container.Command = []string{"nosuch"}
		}, `create container bad-1: exec: "nosuch": executable file not found in $PATH`},
		{"a user nobody knows", func(s *warrenv1.TaskSpec) { s.Container.User = "nobody-knows" }, `user: "nobody-knows" is not known in the image`},
		{"a sysctl of the node", func(s *warrenv1.TaskSpec) { s.Container.Sysctls = map[string]string{"vm.swappiness": "1"} }, "set it on the node"},
		{"a label of ours", func(s *warrenv1.TaskSpec) { s.Container.Labels = map[string]string{"warren.task": "x"} }, "choose another name"},
		{"no such signal", func(s *warrenv1.TaskSpec) { s.Container.StopSignal = "SIGNOPE" }, "stop_signal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := base
			c.Spec = proto.CloneOf(base.Spec)
			test.change(c.Spec)
			_, err := b.Create(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q in it", err, test.want)
			}
			b.assertGone(c.ID)
		})
	}
}

func TestOutputSurvivesAnAgentThatIsAway(t *testing.T) {
	l := startLab(t)
	options := testOptions(t, l)
	b := openBench(t, options)
	image, err := b.Pull(t.Context(), l.registry+"/test:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.image = image
	c := b.container("away", "sleep")
	b.run(c)
	b.awaitOutput("away", "ready")

	// The agent dies: its pipes are closed and nobody says goodbye to containerd.
	b.dropOutput(c.ID)
	if err := b.Signal(t.Context(), c.ID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	second := openBench(t, options)
	found, err := second.List(t.Context())
	if err != nil || len(found) != 1 || found[0].State != StateRunning || found[0].Pid == 0 || found[0].StartedAt.IsZero() {
		t.Fatalf("found %+v, %v", found, err)
	}
	for range 2 {
		if err := second.Reattach(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	second.awaitOutput("away", "got user defined signal 1")
	if err := second.Signal(t.Context(), c.ID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := second.exit(c.ID); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if got := second.output("away"); got != "ready\ngot user defined signal 1\ngot terminated\n" {
		t.Errorf("output %q", got)
	}
}

// keeper holds pipes beside the agents, as systemd does.
type keeper struct {
	t         *testing.T
	mu        sync.Mutex
	held      map[string]*os.File
	inherited []string
}

func (k *keeper) Keep(name string, file *os.File) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[name] = k.again(file)
	return nil
}

func (k *keeper) Take(name string) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := slices.Index(k.inherited, name); at >= 0 {
		k.inherited = slices.Delete(k.inherited, at, at+1)
		return k.again(k.held[name])
	}
	return nil
}

func (k *keeper) Drop(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if file := k.held[name]; file != nil {
		file.Close()
		delete(k.held, name)
	}
	k.inherited = slices.DeleteFunc(k.inherited, func(n string) bool { return n == name })
	return nil
}

func (k *keeper) Inherited() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.inherited)
}

func (k *keeper) again(file *os.File) (again *os.File) {
	raw, err := file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			n, dupErr := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			if dupErr != nil {
				k.t.Error(dupErr)
			}
			again = os.NewFile(uintptr(n), file.Name())
		})
	}
	if err != nil {
		k.t.Error(err)
	}
	return again
}

func TestOutputOfAContainerThatEndsWhileTheAgentIsAwayIsKept(t *testing.T) {
	l := startLab(t)
	options := testOptions(t, l)
	kept := &keeper{t: t, held: map[string]*os.File{}}
	options.Keeper = kept
	first := openBench(t, options)
	image, err := first.Pull(t.Context(), l.registry+"/test:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	first.image = image
	c := first.container("brief", "sleep")
	first.run(c)
	first.awaitOutput("brief", "ready")
	first.dropOutput(c.ID) // the agent dies
	if err := first.Signal(t.Context(), c.ID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	first.exit(c.ID)

	kept.inherited = append(slices.Collect(maps.Keys(kept.held)), "removed-1.stdout")
	second := openBench(t, options)
	found, err := second.List(t.Context())
	if err != nil || len(found) != 1 || found[0].State != StateStopped {
		t.Fatalf("found %+v, %v", found, err)
	}
	if got := kept.Inherited(); len(got) != 2 || slices.Contains(got, "removed-1.stdout") {
		t.Errorf("kept of an earlier agent: %q", got)
	}
	if err := second.Reattach(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if got := second.output("brief"); got != "ready\ngot terminated\n" {
		t.Errorf("output %q", got)
	}
	if err := second.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if len(kept.held) > 0 {
		t.Errorf("kept for ever: %v", kept.held)
	}
}

func TestContainersSurviveContainerdsDeath(t *testing.T) {
	b := newBench(t)
	quiet, brief := b.container("survivor", "sleep"), b.container("brief", "sleep")
	b.run(quiet)
	b.run(brief)
	b.awaitOutput("brief", "ready")
	before, err := b.List(t.Context())
	if err != nil || len(before) != 2 {
		t.Fatalf("%+v %v", before, err)
	}
	pids := map[string]uint32{}
	for _, f := range before {
		pids[f.ID] = f.Pid
	}
	b.lab.kill()
	// One ends while nobody looks.
	if err := syscall.Kill(int(pids[brief.ID]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	listed := make(chan error, 1)
	go func() {
		_, err := b.List(context.Background())
		listed <- err
	}()
	if err := b.lab.start(); err != nil {
		t.Fatal(err)
	}
	b.heardResync()
	if err := <-listed; err != nil {
		t.Errorf("a call made while containerd was away: %v", err)
	}
	after, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range after {
		switch f.ID {
		case quiet.ID:
			if f.State != StateRunning || f.Pid != pids[quiet.ID] {
				t.Errorf("the container that was running is %+v", f)
			}
		case brief.ID:
			if f.State == StateRunning && f.Exit == nil {
				b.exit(brief.ID) // containerd learns of it later, and says so
			} else if f.Exit == nil || f.Exit.Code != 137 {
				t.Errorf("the container that was killed is %+v %+v", f, f.Exit)
			}
		}
	}
	if err := b.Signal(t.Context(), quiet.ID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.exit(quiet.ID)
	b.awaitOutput("survivor", "got terminated")
}

func TestAllOutputIsInTheLogWhenTheExitIsTold(t *testing.T) {
	b := newBench(t)
	c := b.container("many", "count", "20000")
	b.run(c)
	b.exit(c.ID)
	if got := strings.Count(b.output("many"), "\n"); got != 20000 {
		t.Errorf("%d lines", got)
	}
}

func TestPullSaysWhatIsWrong(t *testing.T) {
	b := newBench(t)
	for image, want := range map[string]string{
		b.lab.registry + "/nosuch:1": "image not found: registry " + b.lab.registry,
		"Not An Image":               "not an image's name",
		"127.0.0.1:1/x:1":            "connection refused",
	} {
		if _, err := b.Pull(t.Context(), image, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pull %q: %v, want %q", image, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Pull(ctx, b.lab.registry+"/test:1", nil); err == nil {
		t.Error("a cancelled pull succeeded")
	}
}

func TestAnImageThatIsPresentIsNotAskedForAgain(t *testing.T) {
	b := newBench(t)
	// A registry that is gone: only the node can answer.
	again, err := b.Pull(t.Context(), b.lab.registry+"/test:1", func(string) { t.Error("progress of nothing") })
	if err != nil || again != b.image {
		t.Errorf("%+v %v", again, err)
	}
}

func TestInfoTellsVersionsAndDisk(t *testing.T) {
	b := newBench(t)
	info, err := b.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.ContainerdVersion == "" || info.RuncVersion == "" || info.DiskBytes == 0 || info.DiskFreeBytes == 0 {
		t.Errorf("%+v", info)
	}
}

// shim returns the process that keeps a container's.
func (b *bench) shim(id string) int {
	b.t.Helper()
	found, err := b.List(b.t.Context())
	at := slices.IndexFunc(found, func(f Found) bool { return f.ID == id })
	if err != nil || at < 0 {
		b.t.Fatal(found, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", found[at].Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "PPid:\t")
	var shim int
	if _, err := fmt.Sscan(after, &shim); err != nil || shim < 2 {
		b.t.Fatal(after, err)
	}
	return shim
}

func TestADeadShimIsAnExitAndLeavesNothing(t *testing.T) {
	b := newBench(t)
	c := b.container("orphaned", "sleep")
	b.run(c)
	b.awaitOutput("orphaned", "ready")
	if err := syscall.Kill(b.shim(c.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(c.ID); e.Code != 137 {
		t.Errorf("exit %+v", e)
	}
}

// As on a machine that is short of memory or of its disk's time: containerd waits two seconds for a shim.
func TestAContainerWhoseShimIsSlowIsNotTakenForOneThatHasEnded(t *testing.T) {
	b := newBench(t)
	runs, waits := b.container("slow", "sleep"), b.container("unstarted", "sleep")
	b.run(runs)
	b.awaitOutput("slow", "ready")
	if _, err := b.Create(t.Context(), waits); err != nil {
		t.Fatal(err)
	}
	before, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Container{runs, waits} {
		shim := b.shim(c.ID)
		if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Kill(shim, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}()
	}
	found, err := b.List(t.Context())
	if err != nil || !slices.EqualFunc(found, before, func(a, b Found) bool { return a.ID == b.ID && a.State == b.State && a.Pid == b.Pid && a.Exit == nil }) {
		t.Errorf("found %+v, before %+v, %v", found, before, err)
	}
}

func TestTheRemovalOfAContainerThatDoesNotDieFailsInTime(t *testing.T) {
	b := newBench(t)
	c := b.container("undying", "sleep")
	b.run(c)
	shim := b.shim(c.ID)
	if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error, 1)
	go func() { removed <- b.Remove(context.Background(), c.ID) }()
	select {
	case err := <-removed:
		if err == nil || !strings.Contains(err.Error(), "kill process") {
			t.Errorf("removed: %v", err)
		}
	case <-time.After(deathTime + patience):
		t.Error("it is waited for")
	}
	if err := syscall.Kill(shim, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	b.assertGone(c.ID)
}

func TestAnImageWhoseLayersWereLostIsUnpackedAgain(t *testing.T) {
	b := newBench(t)
	c := b.container("lost", "echo", "found")
	// As if somebody had pruned containerd behind the agent's back.
	ctx := b.context(t.Context())
	config := b.images.config(b.image.Digest)
	if err := b.client.SnapshotService("overlayfs").Remove(ctx, config.chainID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), c); err == nil {
		t.Error("created from nothing")
	}
	if _, err := b.Pull(t.Context(), b.image.Name, nil); err != nil {
		t.Fatal(err)
	}
	b.run(c)
	b.exit(c.ID)
	if got := b.output("lost"); got != "found\n" {
		t.Errorf("output %q", got)
	}
}

func TestARegistrysTroubleIsToldFromItsRefusal(t *testing.T) {
	b := newBench(t)
	for status, want := range map[int]bool{
		http.StatusTooManyRequests: true, http.StatusInternalServerError: true, http.StatusBadGateway: true,
		http.StatusServiceUnavailable: true, http.StatusNotFound: false, http.StatusForbidden: false,
	} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		_, err := b.Pull(t.Context(), strings.TrimPrefix(web.URL, "http://")+"/test:1", nil)
		web.Close()
		if err == nil || RegistryOverloaded(err) != want {
			t.Errorf("%d: overloaded is %t for %v", status, !want, err)
		}
	}
}
