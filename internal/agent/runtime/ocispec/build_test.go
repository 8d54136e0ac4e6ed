package ocispec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// input is the least that makes a container, for tests to change.
func input(change func(*Input, *warrenv1.ContainerSpec)) Input {
	container := &warrenv1.ContainerSpec{Image: "x"}
	in := Input{
		ID:           "task-1",
		Names:        Names{ServiceName: "web", TaskID: "task", Slot: 3, NodeID: "node", NodeHostname: "machine"},
		Spec:         &warrenv1.TaskSpec{Container: container, Network: warrenv1.NetworkMode_NETWORK_MODE_NONE},
		Image:        imagespec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"arg"}, WorkingDir: "work"},
		Host:         Host{LastCapability: 40, MaxFiles: 1 << 20, LimitsSwap: true},
		CgroupParent: "/warren",
		Files:        Files{Hosts: "/state/hosts", Hostname: "/state/hostname", Init: "/agent"},
	}
	if change != nil {
		change(&in, container)
	}
	return in
}

func build(t *testing.T, change func(*Input, *warrenv1.ContainerSpec)) *specs.Spec {
	t.Helper()
	spec, err := Build(input(change))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestCommandAndArgsReplaceTheImagesOwn(t *testing.T) {
	for _, test := range []struct {
		name          string
		command, args []string
		init          bool
		want          []string
	}{
		{"neither", nil, nil, false, []string{"/entry", "arg"}},
		{"args", nil, []string{"a"}, false, []string{"/entry", "a"}},
		{"command drops the image's arguments", []string{"c"}, nil, false, []string{"c"}},
		{"both", []string{"c"}, []string{"a"}, false, []string{"c", "a"}},
		{"init goes before", []string{"c"}, []string{"a"}, true, []string{InitTarget, "c", "a"}},
	} {
		spec := build(t, func(_ *Input, c *warrenv1.ContainerSpec) {
			c.Command, c.Args, c.Init = test.command, test.args, test.init
		})
		same(t, test.name, spec.Process.Args, test.want)
	}
}

func TestTheUsersVariablesWinOverTheImages(t *testing.T) {
	spec := build(t, func(in *Input, c *warrenv1.ContainerSpec) {
		in.Image.Env = []string{"PATH=/image", "A=1", "B=2"}
		c.Env = []string{"B={{.Task.Slot}}", "FORMAT={{.Names}} {{ .Node.Hostname }}", "HOSTNAME=own"}
		c.Tty = true
	})
	same(t, "env", spec.Process.Env, []string{"PATH=/image", "HOSTNAME=own", "TERM=xterm", "A=1", "B=3", "FORMAT={{.Names}} machine"})
}

func TestLimitsBecomeTheControlGroups(t *testing.T) {
	spec := build(t, func(in *Input, _ *warrenv1.ContainerSpec) {
		in.Spec.Limits = &warrenv1.Resources{NanoCpus: 250_000_000, MemoryBytes: 1 << 30, Pids: 9}
		in.Spec.Reservations = &warrenv1.Resources{NanoCpus: 2_000_000_000}
	})
	r := spec.Linux.Resources
	same(t, "quota", *r.CPU.Quota, 25_000)
	same(t, "shares", *r.CPU.Shares, 2048)
	same(t, "memory", *r.Memory.Limit, 1<<30)
	same(t, "swap", *r.Memory.Swap, 1<<30)
	same(t, "pids", *r.Pids.Limit, 9)
	same(t, "cgroup", spec.Linux.CgroupsPath, "/warren/task-1")
	bare := build(t, func(in *Input, _ *warrenv1.ContainerSpec) {
		in.Host.LimitsSwap = false
		in.Spec.Limits = &warrenv1.Resources{NanoCpus: 1, MemoryBytes: 1 << 30}
	}).Linux.Resources
	same(t, "least quota", *bare.CPU.Quota, 1000)
	same(t, "shares of nothing reserved", *bare.CPU.Shares, 102)
	if bare.Memory.Swap != nil {
		t.Error("a swap limit on a kernel that does not count swap")
	}
}

func TestCapabilitiesAreAddedAndDropped(t *testing.T) {
	for _, test := range []struct {
		add, drop []string
		size      int
		has, not  string
	}{
		{nil, nil, 14, "CAP_CHOWN", "CAP_SYS_ADMIN"},
		{[]string{"sys_admin"}, nil, 15, "CAP_SYS_ADMIN", "CAP_BPF"},
		{[]string{"ALL"}, nil, 41, "CAP_BPF", ""},
		{[]string{"ALL"}, []string{"CAP_BPF"}, 40, "CAP_CHOWN", "CAP_BPF"},
		{[]string{"CHOWN"}, []string{"all"}, 1, "CAP_CHOWN", "CAP_KILL"},
		{[]string{"CHOWN"}, []string{"CHOWN"}, 13, "CAP_KILL", "CAP_CHOWN"},
	} {
		set := build(t, func(_ *Input, c *warrenv1.ContainerSpec) { c.CapAdd, c.CapDrop = test.add, test.drop }).Process.Capabilities.Bounding
		if len(set) != test.size || !slices.Contains(set, test.has) || slices.Contains(set, test.not) {
			t.Errorf("add %v drop %v: %v", test.add, test.drop, set)
		}
	}
}

func TestTheUsersMountsComeLastOuterFirstAndReplaceOurs(t *testing.T) {
	spec := build(t, func(_ *Input, c *warrenv1.ContainerSpec) {
		c.Mounts = []*warrenv1.Mount{
			{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: "/srv/{{.Service.Name}}", Target: "/data/inner/", ReadOnly: true},
			{Type: warrenv1.MountType_MOUNT_TYPE_TMPFS, Target: "/data", TmpfsMode: 0o700, TmpfsSizeBytes: 5},
			{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: "/srv/hosts", Target: "/etc/hosts"},
		}
	})
	n := len(spec.Mounts)
	same(t, "the inner", spec.Mounts[n-2], specs.Mount{Destination: "/data/inner", Type: "bind", Source: "/srv/web", Options: []string{"rbind", "rprivate", "ro"}})
	same(t, "the outer", spec.Mounts[n-3].Destination, "/data")
	same(t, "its options", spec.Mounts[n-3].Options, "[nosuid nodev noexec rw mode=700 size=5]")
	var hosts []string
	for _, m := range spec.Mounts {
		if m.Destination == "/etc/hosts" {
			hosts = append(hosts, m.Source)
		}
	}
	same(t, "hosts", hosts, []string{"/srv/hosts"})
}

func TestTheNetworkModeChoosesTheNamespace(t *testing.T) {
	for mode, want := range map[warrenv1.NetworkMode][]specs.LinuxNamespace{
		warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED: {{Type: specs.NetworkNamespace, Path: "/run/netns/task"}},
		warrenv1.NetworkMode_NETWORK_MODE_OVERLAY:     {{Type: specs.NetworkNamespace, Path: "/run/netns/task"}},
		warrenv1.NetworkMode_NETWORK_MODE_NONE:        {{Type: specs.NetworkNamespace}},
		warrenv1.NetworkMode_NETWORK_MODE_HOST:        {},
	} {
		spec := build(t, func(in *Input, _ *warrenv1.ContainerSpec) {
			in.Spec.Network, in.NetworkNamespace = mode, "/run/netns/task"
		})
		others := func(n specs.LinuxNamespace) bool { return n.Type != specs.NetworkNamespace }
		same(t, mode.String(), slices.DeleteFunc(spec.Linux.Namespaces, others), want)
	}
}

func TestSysctlsOfTheNetworkAreForEveryNamespaceOfATasksOwn(t *testing.T) {
	for _, mode := range []warrenv1.NetworkMode{warrenv1.NetworkMode_NETWORK_MODE_OVERLAY, warrenv1.NetworkMode_NETWORK_MODE_NONE} {
		spec := build(t, func(in *Input, c *warrenv1.ContainerSpec) {
			in.Spec.Network, in.NetworkNamespace = mode, "/run/netns/task"
			c.Sysctls = map[string]string{"net/core/somaxconn": "99"}
		})
		same(t, mode.String(), spec.Linux.Sysctl, map[string]string{"net.core.somaxconn": "99"})
	}
}

func TestWhatCannotBeIsRefusedByTheFieldsName(t *testing.T) {
	host := func(in *Input) { in.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_HOST }
	bind := func(source, target string) []*warrenv1.Mount {
		return []*warrenv1.Mount{{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: source, Target: target}}
	}
	for name, test := range map[string]struct {
		change func(*Input, *warrenv1.ContainerSpec)
		want   string
	}{
		"no program":        {func(in *Input, _ *warrenv1.ContainerSpec) { in.Image = imagespec.ImageConfig{} }, "command: the image names no program"},
		"no init":           {func(in *Input, c *warrenv1.ContainerSpec) { c.Init, in.Files.Init = true, "" }, "init:"},
		"env template":      {func(_ *Input, c *warrenv1.ContainerSpec) { c.Env = []string{"A={{.Task.Name}}"} }, "env A: {{.Task.Name}} is not known"},
		"hostname template": {func(_ *Input, c *warrenv1.ContainerSpec) { c.Hostname = "{{.Node.IP}}" }, "hostname: {{.Node.IP}} is not known"},
		"long hostname":     {func(_ *Input, c *warrenv1.ContainerSpec) { c.Hostname = strings.Repeat("h", 65) }, "hostname:"},
		"capability":        {func(_ *Input, c *warrenv1.ContainerSpec) { c.CapAdd = []string{"FLY"} }, "cap_add: this node's kernel has no capability FLY"},
		"young capability":  {func(in *Input, c *warrenv1.ContainerSpec) { in.Host.LastCapability, c.CapDrop = 37, []string{"BPF"} }, "cap_drop:"},
		"ulimit": {func(_ *Input, c *warrenv1.ContainerSpec) {
			c.Ulimits = []*warrenv1.Ulimit{{Name: "core", Soft: -1, Hard: 1}}
		}, "ulimit core: the soft limit is above the hard one"},
		"ulimit twice": {func(_ *Input, c *warrenv1.ContainerSpec) {
			c.Ulimits = []*warrenv1.Ulimit{{Name: "core"}, {Name: "core"}}
		}, "ulimit core: given twice"},
		"sysctl": {func(_ *Input, c *warrenv1.ContainerSpec) { c.Sysctls = map[string]string{"kernel.panic": "1"} }, "sysctl kernel.panic"},
		"sysctl of host": {func(in *Input, c *warrenv1.ContainerSpec) {
			host(in)
			c.Sysctls = map[string]string{"net/ipv4/ip_forward": "1"}
		}, "with network host"},
		"no place":        {func(in *Input, _ *warrenv1.ContainerSpec) { in.Spec.Network = 0 }, "network: the task has no place on the overlay"},
		"relative source": {func(_ *Input, c *warrenv1.ContainerSpec) { c.Mounts = bind("{{.Service.Name}}", "/x") }, "mount /x: source"},
		"root":            {func(_ *Input, c *warrenv1.ContainerSpec) { c.Mounts = bind("/x", "/..") }, "mount /..: target"},
		"our path":        {func(_ *Input, c *warrenv1.ContainerSpec) { c.Mounts = bind("/x", InitTarget) }, "Warren's own"},
		"same target":     {func(_ *Input, c *warrenv1.ContainerSpec) { c.Mounts = append(bind("/x", "/y"), bind("/z", "/y/")...) }, "mount /y: two mounts"},
	} {
		if _, err := Build(input(test.change)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("{{.Service.Name}}-{{ .Task.Slot }}")
	f.Add("{{.Task.}} {{")
	f.Fuzz(func(t *testing.T, text string) {
		names := Names{ServiceName: "web", TaskID: "task", Slot: 1, NodeID: "node", NodeHostname: "machine"}
		once, err := names.Expand(text)
		if err == nil && !strings.Contains(text, "{{") && once != text {
			t.Errorf("%q became %q", text, once)
		}
	})
}
