package specflags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/ctl/durations"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func parse[T any](t *testing.T, into *T, args ...string) *T {
	t.Helper()
	parser, err := kong.New(into, durations.Flags(), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return into
}

func spec(t *testing.T, text string) *warrenv1.ServiceSpec {
	t.Helper()
	s := &warrenv1.ServiceSpec{}
	if err := prototext.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryFlagOfCreateSetsItsField(t *testing.T) {
	t.Setenv("FROM_HERE", "there")
	envFile := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(envFile, []byte("# a comment\n\nX=1\r\nY=from file\nUNSET_ANYWHERE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string // beside name, image and one replica
	}{
		{[]string{"--replicas", "0"}, `replicated {} task { container { image: "nginx" } }`},
		{[]string{"--mode", "global"}, `global {} task { container { image: "nginx" } }`},
		{[]string{"-e", "A=1", "-e", "B=x=y,z", "-e", "A=2", "-e", "FROM_HERE", "-e", "UNSET_ANYWHERE"}, `container { env: "A=2" env: "B=x=y,z" env: "FROM_HERE=there" }`},
		{[]string{"--env-file", envFile, "-e", "Y=flag"}, `container { env: "X=1" env: "Y=flag" }`},
		{[]string{"--entrypoint", `sh -c 'echo "a b"'`}, `container { command: "sh" command: "-c" command: "echo \"a b\"" }`},
		{[]string{"-w", "/srv", "-u", "www:www", "--group", "a", "--group", "b", "--hostname", "h"}, `container { workdir: "/srv" user: "www:www" groups: "a" groups: "b" hostname: "h" }`},
		{[]string{"--read-only", "--init", "-t", "--no-new-privileges"}, `container { read_only: true init: true tty: true no_new_privileges: true }`},
		{[]string{"--cap-add", "NET_ADMIN", "--cap-drop", "ALL"}, `container { cap_add: "NET_ADMIN" cap_drop: "ALL" }`},
		{[]string{"--mount", "type=bind,src=/a,dst=/b,readonly"}, `container { mounts { type: MOUNT_TYPE_BIND source: "/a" target: "/b" read_only: true } }`},
		{[]string{"--mount", "type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770"}, `container { mounts { type: MOUNT_TYPE_TMPFS target: "/t" tmpfs_size_bytes: 67108864 tmpfs_mode: 1016 } }`},
		{[]string{"--ulimit", "nofile=1024:2048", "--ulimit", "core=0"}, `container { ulimits { name: "nofile" soft: 1024 hard: 2048 } ulimits { name: "core" } }`},
		{[]string{"--sysctl", "net.core.somaxconn=1024"}, `container { sysctls { key: "net.core.somaxconn" value: "1024" } }`},
		{[]string{"--container-label", "a=b"}, `container { labels { key: "a" value: "b" } }`},
		{[]string{"--stop-signal", "sigquit", "--stop-grace-period", "90s"}, `container { stop_signal: "SIGQUIT" stop_grace_period { seconds: 90 } }`},
		{[]string{"--seccomp", "unconfined"}, `container { seccomp: SECCOMP_PROFILE_UNCONFINED }`},
		{[]string{"--network", "host"}, `network: NETWORK_MODE_HOST`},
		{[]string{"--network", "none"}, `network: NETWORK_MODE_NONE`},
		{[]string{"--drain-period", "20s"}, `container { drain_period { seconds: 20 } }`},
		{[]string{"--publish", "mode=host,target=80"}, `host_ports { target: 80 }`},
		{[]string{"-p", "host:8080:80/udp"}, `host_ports { target: 80 published: 8080 protocol: PROTOCOL_UDP }`},
		{[]string{"-p", "host:80-81"}, `host_ports { target: 80 } host_ports { target: 81 }`},
		{[]string{"--limit-cpu", "0.5", "--limit-memory", "512MiB", "--limit-pids", "100"}, `limits { nano_cpus: 500000000 memory_bytes: 536870912 pids: 100 }`},
		{[]string{"--reserve-cpu", "1.25", "--reserve-memory", "1g"}, `reservations { nano_cpus: 1250000000 memory_bytes: 1073741824 }`},
		{[]string{"--restart-condition", "on-failure", "--restart-delay", "2s", "--restart-max-delay", "30s", "--restart-max-attempts", "0", "--restart-window", "1m"}, `restart { condition: RESTART_CONDITION_ON_FAILURE delay { seconds: 2 } max_delay { seconds: 30 } max_attempts: 0 window { seconds: 60 } }`},
		{[]string{"--log-opt", "max-size=10m", "--log-opt", "max-file=5"}, `log { max_size_bytes: 10000000 max_files: 5 }`},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got, err := parse(t, &Create{}, c.args...).Spec("nginx", nil)
			if err != nil {
				t.Fatal(err)
			}
			want := spec(t, `replicated { replicas: 1 } task { container { image: "nginx" } }`)
			if strings.Contains(c.want, "nginx") {
				want = spec(t, c.want)
			} else {
				task := &warrenv1.TaskSpec{}
				if err := prototext.Unmarshal([]byte(c.want), task); err != nil {
					t.Fatal(err)
				}
				proto.Merge(want.GetTask(), task)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlacementAndUpdateFlagsStandOutsideTheTask(t *testing.T) {
	got, err := parse(t, &Create{}, "--name", "web", "-l", "team=shop", "-l", "bare",
		"--constraint", "node.labels.a==b,c", "--placement-pref", "spread=node.labels.zone", "--replicas-max-per-node", "2", "--platform", "linux/arm64",
		"--update-parallelism", "3", "--update-delay", "10s", "--update-order", "stop-first").Spec("nginx", []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	want := spec(t, `name: "web" labels { key: "team" value: "shop" } labels { key: "bare" value: "" } replicated { replicas: 1 }
		task { container { image: "nginx" args: "a" args: "b" } }
		placement { constraints: "node.labels.a==b,c" spread: "node.labels.zone" max_replicas_per_node: 2 platforms: "linux/arm64" }
		update { parallelism: 3 delay { seconds: 10 } order: UPDATE_ORDER_STOP_FIRST }`)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestNetworksAndPortsStandOutsideTheTask(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"-p 8080:80", `endpoint { ports { target: 80 published: 8080 } }`},
		{"-p 80", `endpoint { ports { target: 80 } }`},
		{"-p 0:80 -p :81", `endpoint { ports { target: 80 } ports { target: 81 } }`},
		{"-p 53:53/UDP -p 53:53/tcp", `endpoint { ports { target: 53 published: 53 protocol: PROTOCOL_UDP } ports { target: 53 published: 53 protocol: PROTOCOL_TCP } }`},
		{"-p 8000-8001:80-81", `endpoint { ports { target: 80 published: 8000 } ports { target: 81 published: 8001 } }`},
		{"-p 80-81", `endpoint { ports { target: 80 } ports { target: 81 } }`},
		{"--publish published=8080,target=80,protocol=udp,mode=ingress,name=http", `endpoint { ports { name: "http" target: 80 published: 8080 protocol: PROTOCOL_UDP } }`},
		{"--network a --network name=b,alias=x,alias=y", `networks { network: "a" } networks { network: "b" aliases: "x" aliases: "y" }`},
		{"--endpoint-mode dnsrr", `endpoint { mode: ENDPOINT_MODE_DNSRR }`},
	} {
		got, err := parse(t, &Create{}, strings.Fields(c.flags)...).Spec("nginx", nil)
		if err != nil {
			t.Errorf("%s: %v", c.flags, err)
			continue
		}
		want := spec(t, `replicated { replicas: 1 } task { container { image: "nginx" } } `+c.want)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", c.flags, diff)
		}
	}
}

func TestWhatCannotBePublishedOrJoinedIsExplained(t *testing.T) {
	for flags, want := range map[string]string{
		"-p 127.0.0.1:80:80":                "an address, here 127.0.0.1, cannot be chosen",
		"-p 127.0.0.1::80":                  "an address, here 127.0.0.1, cannot be chosen",
		"-p [::1]:80:80":                    "an address, here ::1, cannot be chosen",
		"-p ::1:80":                         "an address, here",
		"-p node.example:80:80":             "an address, here node.example, cannot be chosen",
		"-p 80:80:tcp":                      `"tcp" is not a port from 1 to 65535`,
		"-p host:80:host":                   `"host" is not a port from 1 to 65535`,
		"-p target=80,Target=81":            "target is given twice",
		"--network name=a,name=b":           "name is given twice",
		"-p 80:80/sctp":                     `the protocol is "sctp", but can be tcp or udp`,
		"-p 8000-8001:80":                   "8000-8001 and 80 are not equally many ports",
		"-p 81-80":                          "the range 81-80 goes backwards",
		"-p 1-60000":                        "the range 1-60000 has 60000 ports; a service can have 256",
		"-p 70000":                          `"70000" is not a port from 1 to 65535`,
		"-p http":                           `"http" is not a port from 1 to 65535`,
		"-p published=80":                   "target is missing",
		"-p target=80,mode=both":            `the mode is "both", but can be ingress (open on every node) or host`,
		"-p target=80,ip=1.2.3.4":           "ip is not known: published, target, protocol, mode and name are",
		"--network host --network a":        "--network host cannot go with other networks",
		"--network name=host,alias=a":       "there are no aliases outside",
		"--network alias=a":                 "name is missing",
		"--network name=a,driver-opt=b":     "driver-opt is not known: name and alias are",
		"--endpoint-mode round-robin -p 80": `--endpoint-mode is "round-robin", but can be vip or dnsrr`,
	} {
		if _, err := parse(t, &Create{}, strings.Fields(flags)...).Spec("nginx", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

func TestAnUpdateChangesNetworksAndPorts(t *testing.T) {
	const task = `task { container { image: "nginx" } } `
	for _, c := range []struct{ before, flags, after string }{
		{``, "--network-add a", `networks { network: "default" } networks { network: "a" }`},
		{``, "--network-add default", ``},
		{``, "--network-add name=default,alias=x", `networks { network: "default" aliases: "x" }`},
		{`networks { network: "a" } networks { network: "b" }`, "--network-rm a --network-add c", `networks { network: "b" } networks { network: "c" }`},
		{`networks { network: "a" aliases: "x" } networks { network: "b" }`, "--network-add a", `networks { network: "a" } networks { network: "b" }`},
		{`networks { network: "a" }`, "--network none", `task { network: NETWORK_MODE_NONE }`},
		{`task { network: NETWORK_MODE_HOST }`, "--network a", `networks { network: "a" }`},
		{`task { network: NETWORK_MODE_OVERLAY }`, "--network a", `task { network: NETWORK_MODE_OVERLAY } networks { network: "a" }`},
		{``, "--publish-add 80:80", `endpoint { ports { target: 80 published: 80 } }`},
		{`endpoint { ports { target: 80 published: 8080 } }`, "--publish 8080:81", `endpoint { ports { target: 81 published: 8080 } }`},
		{`endpoint { ports { target: 80 published: 8080 } }`, "-p 80", `endpoint { ports { target: 80 published: 8080 } }`},
		{`endpoint { ports { target: 80 published: 8080 } }`, "-p target=80,name=http", `endpoint { ports { target: 80 published: 8080 name: "http" } }`},
		{`endpoint { ports { target: 80 published: 8080 protocol: PROTOCOL_TCP } ports { target: 80 protocol: PROTOCOL_UDP } }`, "--publish-rm 80", `endpoint { ports { target: 80 protocol: PROTOCOL_UDP } }`},
		{`endpoint { ports { target: 80 published: 8080 } ports { target: 80 published: 8081 } }`, "--publish-rm 8081:80", `endpoint { ports { target: 80 published: 8080 } }`},
		{`endpoint { ports { target: 80 } ports { target: 81 } ports { target: 82 } }`, "--publish-rm 80-81", `endpoint { ports { target: 82 } }`},
		{`task { host_ports { target: 80 published: 80 } } endpoint { ports { target: 80 published: 81 } }`, "--publish-rm 80", `endpoint {}`},
		{`task { host_ports { target: 80 published: 80 } } endpoint { ports { target: 80 published: 81 } }`, "--publish-rm host:80", `endpoint { ports { target: 80 published: 81 } }`},
		{`endpoint { ports { target: 80 published: 80 } }`, "--publish-rm 80 --publish-add published=80,target=80,mode=host", `task { host_ports { target: 80 published: 80 } }`},
	} {
		got, want := spec(t, task), spec(t, task)
		proto.Merge(got, spec(t, c.before))
		proto.Merge(want, spec(t, c.after))
		if err := parse(t, &Update{}, strings.Fields(c.flags)...).Apply(got); err != nil {
			t.Errorf("%s: %v", c.flags, err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
			t.Errorf("%s: %s", c.flags, diff)
		}
	}
}

func TestAnUpdateThatWouldRemoveWhatIsNotThereIsExplained(t *testing.T) {
	for _, c := range []struct{ before, flags, want string }{
		{`networks { network: "a" }`, "--network-rm a", "would be on no network: add one with --network-add, or use --network none"},
		{``, "--network-rm default", "would be on no network"},
		{``, "--network-add host", "host is no network"},
		{`task { network: NETWORK_MODE_HOST }`, "--network-add a", "use --network NAME"},
		{`endpoint { ports { target: 80 published: 8080 } }`, "--publish-rm 8080", "to end publishing 8080 write 80, where it leads"},
		{``, "--publish-rm 80", "no such port is published"},
		{`endpoint { ports { target: 80 } }`, "--publish-rm 30000:80", "was left to Warren to choose: write 80 alone"},
		{`endpoint { ports { target: 80 published: 8080 } }`, "--publish-rm host:80", "no such port is published"},
		{`networks { network: "a" } networks { network: "b" }`, "--network-rm c", "--network-rm c: the service is not on it, but on a, b"},
		{``, "--network-rm c", "is not on it, but on default"},
	} {
		if err := parse(t, &Update{}, strings.Fields(c.flags)...).Apply(spec(t, c.before)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.flags, err)
		}
	}
}

func TestAnUpdateWithoutFlagsChangesNothing(t *testing.T) {
	full := spec(t, `name: "web" labels { key: "a" value: "b" } replicated { replicas: 3 }
		task { container { image: "nginx" env: "A=1" mounts { type: MOUNT_TYPE_TMPFS target: "/t" } cap_add: "X" } limits { pids: 3 } restart { max_attempts: 2 } force: 4 }
		placement { constraints: "a==b" spread: "node.labels.z" platforms: "linux/amd64" } update { parallelism: 2 }`)
	got := proto.CloneOf(full)
	if err := parse(t, &Update{}).Apply(got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestAnUpdateChangesWhatIsGivenAndNothingElse(t *testing.T) {
	const before = `name: "web" labels { key: "a" value: "1" } replicated { replicas: 3 }
		task { container { image: "nginx" args: "old" env: "A=1" env: "B=2" mounts { type: MOUNT_TYPE_BIND source: "/x" target: "/d" }
			ulimits { name: "nofile" soft: 1 hard: 1 } cap_add: "CAP_NET_ADMIN" cap_drop: "CHOWN" groups: "g" }
			limits { nano_cpus: 5 pids: 3 } restart { max_attempts: 2 } }
		placement { constraints: "node.id == x" constraints: "b==c" spread: "node.labels.z" platforms: "linux/amd64" }`
	for _, c := range []struct {
		args   []string
		change func(*warrenv1.ServiceSpec)
	}{
		{[]string{"--image", "nginx:2"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "nginx:2" }},
		{[]string{"--args", "new 'a b'"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Args = []string{"new", "a b"} }},
		{[]string{"--args", ""}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Args = nil }},
		{[]string{"--force"}, func(s *warrenv1.ServiceSpec) { s.Task.Force = 1 }},
		{[]string{"--replicas", "0"}, func(s *warrenv1.ServiceSpec) { s.GetReplicated().Replicas = 0 }},
		{[]string{"--env-add", "B=9", "--env-add", "C=3", "--env-rm", "A"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Env = []string{"B=9", "C=3"} }},
		{[]string{"--env", "A=5"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Env[0] = "A=5" }},
		{[]string{"--label-rm", "a", "--label-add", "b=2"}, func(s *warrenv1.ServiceSpec) { s.Labels = map[string]string{"b": "2"} }},
		{[]string{"--mount-rm", "/d"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Mounts = nil }},
		{[]string{"--mount-add", "type=bind,source=/y,target=/d"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Mounts[0].Source = "/y" }},
		{[]string{"--ulimit-add", "nofile=7"}, func(s *warrenv1.ServiceSpec) {
			s.Task.Container.Ulimits[0].Soft, s.Task.Container.Ulimits[0].Hard = 7, 7
		}},
		{[]string{"--ulimit-rm", "nofile"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Ulimits = nil }},
		{[]string{"--cap-drop", "net_admin"}, func(s *warrenv1.ServiceSpec) {
			s.Task.Container.CapAdd, s.Task.Container.CapDrop = nil, []string{"CHOWN", "net_admin"}
		}},
		{[]string{"--group-add", "g", "--group-add", "h"}, func(s *warrenv1.ServiceSpec) { s.Task.Container.Groups = []string{"g", "h"} }},
		{[]string{"--constraint-rm", "node.id==x", "--constraint-add", "d!=e"}, func(s *warrenv1.ServiceSpec) {
			s.Placement.Constraints = []string{"b==c", "d!=e"}
		}},
		{[]string{"--placement-pref-rm", "spread=node.labels.z"}, func(s *warrenv1.ServiceSpec) { s.Placement.Spread = nil }},
		{[]string{"--platform", ""}, func(s *warrenv1.ServiceSpec) { s.Placement.Platforms = nil }},
		{[]string{"--limit-cpu", "0"}, func(s *warrenv1.ServiceSpec) { s.Task.Limits.NanoCpus = 0 }},
		{[]string{"--restart-max-attempts", "unlimited"}, func(s *warrenv1.ServiceSpec) { s.Task.Restart.MaxAttempts = nil }},
		{[]string{"--read-only=false"}, func(*warrenv1.ServiceSpec) {}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got, want := spec(t, before), spec(t, before)
			c.change(want)
			if err := parse(t, &Update{}, c.args...).Apply(got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrorsNameTheFlagAndTheRemedy(t *testing.T) {
	second := time.Second
	word := func(s string) *string { return &s }
	for want, flags := range map[string]Create{
		`--env: "=x" is not KEY=VALUE`:                                                                     {Env: []string{"=x"}},
		`--entrypoint: "sh -c 'x" is not a command line: a quote is not closed`:                            {Settings: Settings{Entrypoint: word("sh -c 'x")}},
		`--endpoint-mode is "mesh", but can be vip or dnsrr`:                                               {Settings: Settings{EndpointMode: word("mesh"), StopGracePeriod: &second}},
		`--mount type=bind,target=/x: source must be an absolute path on the node`:                         {Mount: []string{"type=bind,target=/x"}},
		`--mount source=/a,target=/x: type is missing: bind or tmpfs`:                                      {Mount: []string{"source=/a,target=/x"}},
		`--mount type=tmpfs,target=x: target must be an absolute path in the container`:                    {Mount: []string{"type=tmpfs,target=x"}},
		`--mount type=bind,source=/a,target=/b,tmpfs-size=1: tmpfs-size and tmpfs-mode go with type=tmpfs`: {Mount: []string{"type=bind,source=/a,target=/b,tmpfs-size=1"}},
		`--placement-pref binpack: not spread=LABEL, such as spread=node.labels.zone`:                      {PlacementPref: []string{"binpack"}},
		`--log-opt colour=blue: not known: max-size and max-file are`:                                      {Settings: Settings{LogOpt: []string{"colour=blue"}}},
		`--label: "=v" is not KEY=VALUE`:                                                                   {Label: []string{"=v"}},
	} {
		if _, err := flags.Spec("nginx", nil); err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

func TestAFileOfVariablesMustBeUTF8AndMaySaySo(t *testing.T) {
	write := func(content string) []string {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{path}
	}
	unset := func(string) (string, bool) { return "", false }
	if got, err := environment(write("\ufeffA=1\n"), nil, unset); err != nil || len(got) != 1 || got[0] != "A=1" {
		t.Errorf("got %q and %v", got, err)
	}
	if _, err := environment(write("A=1\nB=caf\xe9\n"), nil, unset); err == nil || !strings.Contains(err.Error(), "env line 2: ") || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("error is %v", err)
	}
	latin := func(string) (string, bool) { return "caf\xe9", true }
	if _, err := environment(nil, []string{"B"}, latin); err == nil || !strings.Contains(err.Error(), "--env B: ") {
		t.Errorf("error is %v", err)
	}
}

func TestANumberOfProcessorsIsRefusedInProcessors(t *testing.T) {
	var c CPUs
	for _, text := range []string{"10000.1", "99999999999999999999", "-1", "0.0000000001"} {
		if err := c.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "at most 10000") {
			t.Errorf("%s: error is %v", text, err)
		}
	}
	if err := c.UnmarshalText([]byte("10000")); err != nil || c != 10_000_000_000_000 {
		t.Errorf("got %d and %v", c, err)
	}
}

func TestNamesComeFromImages(t *testing.T) {
	for _, c := range []struct {
		image  string
		number int
		want   string
	}{
		{"nginx", 1, "nginx"},
		{"nginx", 2, "nginx-2"},
		{"docker.io/library/nginx:1.27", 1, "nginx"},
		{"registry.example:5000/Team/My_App:v1", 1, "my-app"},
		{"name@sha256:abc", 1, "name"},
		{"registry.example:5000/app", 1, "app"},
		{"", 1, "service"},
		{"___", 3, "service-3"},
	} {
		if got := NameFor(c.image, c.number); got != c.want {
			t.Errorf("NameFor(%q, %d) = %q, want %q", c.image, c.number, got, c.want)
		}
	}
}

func TestEveryNameMadeFromAnImageIsADNSLabel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := NameFor(rapid.String().Draw(t, "image"), rapid.IntRange(1, 100).Draw(t, "number"))
		if len(name) > 63 || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name[0] == '-' || name[len(name)-1] == '-' {
			t.Fatalf("%q is not a DNS label", name)
		}
	})
}

func TestAFieldIsNamedByItsFlag(t *testing.T) {
	for path, want := range map[string]string{
		"spec.name":                            "--name",
		"spec.task.container.env[2]":           "--env [2]",
		"spec.task.container.mounts[0].target": "--mount [0].target",
		`spec.labels["a.b"]`:                   `--label ["a.b"]`,
		"spec.task.force":                      "",
		"spec.networks[1].aliases[0]":          "--network [1].aliases[0]",
		"spec.network.vip_range":               "--vip-range",
		"":                                     "",
	} {
		if got := FlagOf(path); got != want {
			t.Errorf("FlagOf(%q) = %q, want %q", path, got, want)
		}
	}
}

func FuzzFlagValues(f *testing.F) {
	for _, seed := range []string{"type=bind,source=/a,target=/b", "nofile=1:2", "64m", "1.5", `a "b c"`, "max-size=10m", "\"", "spread=x", "1-3:4-6/udp", "target=1,mode=host", "name=a,alias=b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		// Whatever is given, the answer is a spec or an error.
		_, _ = (&Create{
			Settings: Settings{Entrypoint: &value, LogOpt: []string{value}},
			Env:      []string{value}, Label: []string{value}, Constraint: []string{value},
		}).Spec(value, nil)
		_, _ = mount(value)
		_, _ = ulimit(value)
		_, _ = spread(value)
		_, _ = attachment("--network", value)
		_, _ = canarySteps(value)
		_, _ = headers([]string{value})
		_, _ = (&Create{Settings: Settings{Health: Health{HealthHTTP: &value}, Rollout: Rollout{OnNodeLoss: &value}}}).Spec("nginx", nil)
		ports, err := publish("--publish", value)
		for _, p := range ports {
			if err == nil && (p.GetTarget() == 0 || p.GetTarget() > 65535 || p.GetPublished() > 65535) {
				t.Errorf("%q is %v", value, p)
			}
		}
		var m Memory
		if err := m.UnmarshalText([]byte(value)); err == nil && m < 0 {
			t.Errorf("%q is %d bytes", value, m)
		}
		var c CPUs
		if err := c.UnmarshalText([]byte(value)); err == nil && c < 0 {
			t.Errorf("%q is %d billionths of a processor", value, c)
		}
		_ = NameFor(value, 1)
	})
}
