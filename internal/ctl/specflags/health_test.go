package specflags

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestEveryFlagAboutHealthSetsItsField(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // task.health
	}{
		{[]string{"--health-cmd", "curl -f http://localhost/ || exit 1"}, `exec { command: "curl -f http://localhost/ || exit 1" shell: true }`},
		{[]string{"--health-http", "8080"}, `http { port: 8080 }`},
		{[]string{"--health-http", ":8080/healthz?deep=1/2"}, `http { port: 8080 path: "/healthz?deep=1/2" }`},
		{[]string{"--health-tcp", "5432"}, `tcp { port: 5432 }`},
		{[]string{"--health-grpc", "9000"}, `grpc { port: 9000 }`},
		{[]string{"--health-grpc", "9000/shop.Orders", "--health-tls"}, `grpc { port: 9000 service: "shop.Orders" tls: true }`},
		{
			[]string{"--health-http", "443/", "--health-method", "head", "--health-header", "Host:shop.example", "--health-header", "X-A: a:b ", "--health-status", "200,204-299", "--health-body", "ok|fine", "--health-tls", "--health-tls-skip-verify"},
			`http { port: 443 path: "/" method: "HEAD" headers: "Host: shop.example" headers: "X-A: a:b" status: "200,204-299" body: "ok|fine" tls: true tls_skip_verify: true }`,
		},
		{[]string{"--health-http", "443", "--health-tls", "--health-server-name", "shop.example"}, `http { port: 443 tls: true server_name: "shop.example" }`},
		{
			[]string{"--health-interval", "10s", "--health-timeout", "2s", "--health-retries", "5", "--health-success-threshold", "2", "--health-start-period", "1m", "--health-start-interval", "500ms", "--health-on-failure", "withdraw"},
			`interval { seconds: 10 } timeout { seconds: 2 } retries: 5 success_threshold: 2 start_period { seconds: 60 } start_interval { nanos: 500000000 } on_failure: UNHEALTHY_ACTION_WITHDRAW`,
		},
		{[]string{"--health-on-failure", "restart"}, `on_failure: UNHEALTHY_ACTION_RESTART`},
		{[]string{"--no-healthcheck"}, `disabled: true`},
	} {
		got, err := parse(t, &Create{}, c.args...).Spec("nginx", nil)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		want := &warrenv1.HealthCheck{}
		if err := prototext.Unmarshal([]byte(c.want), want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.GetTask().GetHealth(), protocmp.Transform()); diff != "" {
			t.Errorf("%q: %s", c.args, diff)
		}
	}
}

func TestWhatIsUsualIsNoHealthCheck(t *testing.T) {
	for _, flags := range []string{"", "--health-interval 0s --health-retries 0", "--no-healthcheck=false"} {
		got, err := parse(t, &Create{}, strings.Fields(flags)...).Spec("nginx", nil)
		if err != nil || got.GetTask().GetHealth() != nil {
			t.Errorf("%s: %v, %v", flags, got.GetTask().GetHealth(), err)
		}
	}
	if got, err := parse(t, &Create{}, "--health-cmd", "").Spec("nginx", nil); err != nil || got.GetTask().GetHealth() != nil {
		t.Errorf("%v, %v", got.GetTask().GetHealth(), err)
	}
}

func TestAnUpdateChangesOfAProbeWhatIsGiven(t *testing.T) {
	const http = `http { port: 8080 path: "/healthz" method: "HEAD" headers: "A: b" tls: true tls_skip_verify: true } interval { seconds: 5 }`
	for _, c := range []struct {
		before string
		args   []string
		after  string
	}{
		{http, []string{"--health-http", "8081"}, `http { port: 8081 method: "HEAD" headers: "A: b" tls: true tls_skip_verify: true } interval { seconds: 5 }`},
		{http, []string{"--health-method", "GET", "--health-header", ""}, `http { port: 8080 path: "/healthz" method: "GET" tls: true tls_skip_verify: true } interval { seconds: 5 }`},
		{http, []string{"--health-tls=false"}, `http { port: 8080 path: "/healthz" method: "HEAD" headers: "A: b" } interval { seconds: 5 }`},
		{http, []string{"--health-interval", "0s"}, `http { port: 8080 path: "/healthz" method: "HEAD" headers: "A: b" tls: true tls_skip_verify: true }`},
		{http, []string{"--health-http", ""}, `interval { seconds: 5 }`},
		{http, []string{"--health-http", "", "--health-interval", "0s"}, ``},
		{http, []string{"--health-http", "", "--health-tcp", "80"}, `tcp { port: 80 } interval { seconds: 5 }`},
		{http, []string{"--health-cmd", "true"}, `exec { command: "true" shell: true } interval { seconds: 5 }`},
		{http, []string{"--no-healthcheck"}, `disabled: true`},
		{`grpc { port: 9 service: "a" tls: true }`, []string{"--health-grpc", "9"}, `grpc { port: 9 tls: true }`},
		{`disabled: true`, []string{"--health-tcp", "80"}, `tcp { port: 80 }`},
		{`disabled: true`, []string{"--no-healthcheck=false", "--health-retries", "2"}, `retries: 2`},
		{``, []string{"--health-cmd", ""}, ``},
	} {
		check := func(text string) *warrenv1.ServiceSpec {
			return spec(t, `task { container { image: "nginx" } health { `+text+` } }`)
		}
		got, want := check(c.before), check(c.after)
		if err := parse(t, &Update{}, c.args...).Apply(got); err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if c.after == "" {
			want.Task.Health = nil
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%q: %s", c.args, diff)
		}
	}
}

func TestFlagsAboutHealthThatDoNotGoTogetherAreExplained(t *testing.T) {
	for _, c := range []struct {
		before string
		args   []string
		want   string
	}{
		{``, []string{"--health-cmd", "true", "--health-tcp", "80"}, "--health-cmd and --health-tcp: a task is probed in one way: leave one out"},
		{``, []string{"--health-http", "http://x/"}, `--health-http: "http://x/" does not begin with a port from 1 to 65535, such as 8080/healthz`},
		{``, []string{"--health-http", "70000"}, `does not begin with a port`},
		{``, []string{"--health-tcp", "80/x"}, `--health-tcp: "80/x" is not a port such as 5432`},
		{``, []string{"--health-grpc", "0"}, `does not begin with a port`},
		{``, []string{"--health-status", "200"}, "--health-status goes with --health-http, but the tasks are probed by what their image says, if anything"},
		{`tcp { port: 1 }`, []string{"--health-header", "A:b"}, "--health-header goes with --health-http, but the tasks are probed by TCP"},
		{`exec { command: "x" }`, []string{"--health-tls"}, "--health-tls goes with --health-http and --health-grpc, but the tasks are probed by a command"},
		{`http { port: 1 }`, []string{"--health-tls-skip-verify"}, "--health-tls-skip-verify goes with --health-tls"},
		{`http { port: 1 }`, []string{"--health-server-name", "x"}, "--health-server-name goes with --health-tls"},
		{`http { port: 1 }`, []string{"--health-header", "a b"}, `--health-header: "a b" is not NAME:VALUE`},
		{`http { port: 1 }`, []string{"--health-header", "X Y: a"}, `--health-header: "X Y: a" is not NAME:VALUE`},
		{`http { port: 1 }`, []string{"--health-cmd", ""}, "--health-cmd '': the tasks are probed by HTTP: --health-http '' takes that away"},
		{``, []string{"--no-healthcheck", "--health-retries", "3"}, "--no-healthcheck and --health-retries contradict each other: leave one out"},
		{`disabled: true`, []string{"--health-interval", "3s"}, "--health-interval: the service's tasks are not probed: give a probe as well, or --no-healthcheck=false for the image's own"},
		{``, []string{"--health-on-failure", "kill"}, `--health-on-failure is "kill", but can be restart or withdraw`},
	} {
		before := spec(t, `task { container { image: "nginx" } health { `+c.before+` } }`)
		if err := parse(t, &Update{}, c.args...).Apply(proto.CloneOf(before)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.args, err, c.want)
		}
	}
}
