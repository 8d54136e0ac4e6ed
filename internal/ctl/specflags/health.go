package specflags

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Health are the flags that say how it is found out whether a task does its work. Those of Docker have its names
// and meaning: an interval, timeout or number of 0 stands for what is usual.
type Health struct {
	HealthCmd  *string `group:"Health" help:"Probe by this command in the container, run by its shell; empty for no probe but the image's." placeholder:"COMMAND"`
	HealthHTTP *string `name:"health-http" group:"Health" help:"Probe by asking for a page, such as 8080/healthz; empty for no probe but the image's." placeholder:"PORT[/PATH]"`
	HealthTCP  *string `name:"health-tcp" group:"Health" help:"Probe by connecting; empty for no probe but the image's." placeholder:"PORT"`
	HealthGRPC *string `name:"health-grpc" group:"Health" help:"Probe by the gRPC health checking protocol; empty for no probe but the image's." placeholder:"PORT[/SERVICE]"`

	HealthMethod        *string  `group:"Health" help:"HTTP: method (GET)." placeholder:"METHOD"`
	HealthHeader        []string `sep:"none" group:"Health" help:"HTTP: header to send; repeatable, and all in one: those there were go. Empty for none." placeholder:"NAME:VALUE"`
	HealthStatus        *string  `group:"Health" help:"HTTP: statuses that mean success, such as 200,204 or 200-299 (200-399)." placeholder:"STATUS"`
	HealthBody          *string  `group:"Health" help:"HTTP: regular expression that the body must match." placeholder:"REGEXP"`
	HealthTLS           *bool    `name:"health-tls" group:"Health" help:"HTTP and gRPC: speak TLS. gRPC takes any certificate."`
	HealthTLSSkipVerify *bool    `name:"health-tls-skip-verify" group:"Health" help:"HTTP: take any certificate."`
	HealthServerName    *string  `group:"Health" help:"HTTP: name that the certificate must be for (the Host header's)." placeholder:"NAME"`

	HealthInterval         *time.Duration `group:"Health" help:"Time between probes (30s)." placeholder:"DURATION"`
	HealthTimeout          *time.Duration `group:"Health" help:"A probe that takes longer has failed (30s)." placeholder:"DURATION"`
	HealthRetries          *uint32        `group:"Health" help:"Failures in a row that make a task unhealthy (3)." placeholder:"N"`
	HealthSuccessThreshold *uint32        `group:"Health" help:"Successes in a row that make it healthy again (1)." placeholder:"N"`
	HealthStartPeriod      *time.Duration `group:"Health" help:"Time after the start in which failures do not count (0s)." placeholder:"DURATION"`
	HealthStartInterval    *time.Duration `group:"Health" help:"Longest time between probes until one has succeeded (5s)." placeholder:"DURATION"`
	HealthOnFailure        *string        `group:"Health" help:"What comes of an unhealthy task beside that it gets no connections: restart, or withdraw (nothing more) (restart)." placeholder:"WHAT"`

	NoHealthcheck *bool `name:"no-healthcheck" group:"Health" help:"Do not probe, also where the image has a HEALTHCHECK."`
}

var unhealthyActions = []choice[warrenv1.UnhealthyAction]{
	{"restart", warrenv1.UnhealthyAction_UNHEALTHY_ACTION_RESTART},
	{"withdraw", warrenv1.UnhealthyAction_UNHEALTHY_ACTION_WITHDRAW},
}

// probeFlag is one of the flags that name a probe.
type probeFlag struct {
	flag  string
	given *string
	// is tells whether a health check has this kind of probe.
	is func(*warrenv1.HealthCheck) bool
	// set gives it one, keeping what the flag does not say of one that is there.
	set func(h *warrenv1.HealthCheck, value string) error
}

func (f *Health) probes() []probeFlag {
	return []probeFlag{
		{"--health-cmd", f.HealthCmd, func(h *warrenv1.HealthCheck) bool { return h.GetExec() != nil }, setCommand},
		{"--health-http", f.HealthHTTP, func(h *warrenv1.HealthCheck) bool { return h.GetHttp() != nil }, setHTTP},
		{"--health-tcp", f.HealthTCP, func(h *warrenv1.HealthCheck) bool { return h.GetTcp() != nil }, setTCP},
		{"--health-grpc", f.HealthGRPC, func(h *warrenv1.HealthCheck) bool { return h.GetGrpc() != nil }, setGRPC},
	}
}

// applyHealth writes what was given into a task's health check, which may be there already.
func (f *Health) applyHealth(spec *warrenv1.ServiceSpec) error {
	task := spec.GetTask()
	h := task.GetHealth()
	if h == nil {
		h = &warrenv1.HealthCheck{}
	}
	others := f.firstOther()
	if f.NoHealthcheck != nil {
		if *f.NoHealthcheck && others != "" {
			return fmt.Errorf("--no-healthcheck and %s contradict each other: leave one out", others)
		}
		if *f.NoHealthcheck {
			task.Health = &warrenv1.HealthCheck{Disabled: true}
			return nil
		}
		h.Disabled = false
	}
	if err := f.applyProbe(h); err != nil {
		return err
	}
	if h.GetDisabled() && others != "" {
		return fmt.Errorf("%s: the service's tasks are not probed: give a probe as well, or --no-healthcheck=false for the image's own", others)
	}
	if err := f.applyHTTP(h); err != nil {
		return err
	}
	setTime(&h.Interval, f.HealthInterval)
	setTime(&h.Timeout, f.HealthTimeout)
	setTime(&h.StartPeriod, f.HealthStartPeriod)
	setTime(&h.StartInterval, f.HealthStartInterval)
	set(&h.Retries, f.HealthRetries)
	set(&h.SuccessThreshold, f.HealthSuccessThreshold)
	if err := choose("--health-on-failure", f.HealthOnFailure, &h.OnFailure, unhealthyActions); err != nil {
		return err
	}
	task.Health = h
	if proto.Size(h) == 0 { // the same as none, and not to be taken for another template
		task.Health = nil
	}
	return nil
}

// applyProbe sets the one probe that a flag names, or takes it away.
func (f *Health) applyProbe(h *warrenv1.HealthCheck) error {
	var named *probeFlag
	for _, p := range f.probes() {
		switch {
		case p.given == nil:
		case *p.given == "":
			if p.is(h) {
				h.Probe = nil
			}
		case named != nil:
			return fmt.Errorf("%s and %s: a task is probed in one way: leave one out", named.flag, p.flag)
		default:
			named = &p
		}
	}
	if named == nil {
		return f.checkTaken(h)
	}
	h.Disabled = false
	return named.set(h, *named.given)
}

// checkTaken refuses to take away a probe of a kind that the service does not have, while it has another.
func (f *Health) checkTaken(h *warrenv1.HealthCheck) error {
	for _, p := range f.probes() {
		if p.given != nil && h.GetProbe() != nil {
			return fmt.Errorf("%s '': the tasks are probed by %s: %s '' takes that away", p.flag, probeOf(h), f.flagOf(h))
		}
	}
	return nil
}

// flagOf returns the flag of the probe that there is.
func (f *Health) flagOf(h *warrenv1.HealthCheck) string {
	for _, p := range f.probes() {
		if p.is(h) {
			return p.flag
		}
	}
	return ""
}

// probeOf says in a word how tasks are probed.
func probeOf(h *warrenv1.HealthCheck) string {
	switch h.GetProbe().(type) {
	case *warrenv1.HealthCheck_Http:
		return "HTTP"
	case *warrenv1.HealthCheck_Tcp:
		return "TCP"
	case *warrenv1.HealthCheck_Exec:
		return "a command"
	case *warrenv1.HealthCheck_Grpc:
		return "gRPC"
	default:
		return "what their image says, if anything"
	}
}

// applyHTTP sets what belongs to one kind of probe.
func (f *Health) applyHTTP(h *warrenv1.HealthCheck) error {
	http, grpc := h.GetHttp(), h.GetGrpc()
	if flag := f.firstHTTP(); http == nil && flag != "" {
		return fmt.Errorf("%s goes with --health-http, but the tasks are probed by %s", flag, probeOf(h))
	}
	if f.HealthTLS != nil {
		switch {
		case http != nil:
			http.Tls = *f.HealthTLS
		case grpc != nil:
			grpc.Tls = *f.HealthTLS
		default:
			return fmt.Errorf("--health-tls goes with --health-http and --health-grpc, but the tasks are probed by %s", probeOf(h))
		}
	}
	if http == nil {
		return nil
	}
	if f.HealthMethod != nil {
		http.Method = strings.ToUpper(*f.HealthMethod)
	}
	if f.HealthHeader != nil {
		headers, err := headers(f.HealthHeader)
		if err != nil {
			return err
		}
		http.Headers = headers
	}
	set(&http.Status, f.HealthStatus)
	set(&http.Body, f.HealthBody)
	set(&http.TlsSkipVerify, f.HealthTLSSkipVerify)
	set(&http.ServerName, f.HealthServerName)
	if http.GetTls() {
		return nil
	}
	switch {
	case f.HealthTLSSkipVerify != nil && *f.HealthTLSSkipVerify:
		return fmt.Errorf("--health-tls-skip-verify goes with --health-tls")
	case f.HealthServerName != nil && *f.HealthServerName != "":
		return fmt.Errorf("--health-server-name goes with --health-tls")
	}
	if f.HealthTLS != nil { // it speaks TLS no more
		http.TlsSkipVerify, http.ServerName = false, ""
	}
	return nil
}

// headers reads NAME:VALUE values; an empty one is none.
func headers(values []string) ([]string, error) {
	var all []string
	for _, v := range values {
		name, value, ok := strings.Cut(v, ":")
		switch {
		case v == "":
			continue
		case !ok || name == "" || strings.ContainsFunc(name, unicode.IsSpace):
			return nil, fmt.Errorf("--health-header: %q is not NAME:VALUE, such as Host:shop.example", v)
		}
		all = append(all, name+": "+strings.TrimSpace(value))
	}
	return all, nil
}

// firstHTTP returns the first flag given that belongs to HTTP probes alone.
func (f *Health) firstHTTP() string {
	return firstGiven(
		given{"--health-method", f.HealthMethod != nil}, given{"--health-header", f.HealthHeader != nil},
		given{"--health-status", f.HealthStatus != nil}, given{"--health-body", f.HealthBody != nil},
		given{"--health-tls-skip-verify", f.HealthTLSSkipVerify != nil}, given{"--health-server-name", f.HealthServerName != nil},
	)
}

// firstOther returns the first flag given but for --no-healthcheck and those that take a probe away.
func (f *Health) firstOther() string {
	for _, p := range f.probes() {
		if p.given != nil && *p.given != "" {
			return p.flag
		}
	}
	if flag := f.firstHTTP(); flag != "" {
		return flag
	}
	return firstGiven(
		given{"--health-tls", f.HealthTLS != nil}, given{"--health-interval", f.HealthInterval != nil},
		given{"--health-timeout", f.HealthTimeout != nil}, given{"--health-retries", f.HealthRetries != nil},
		given{"--health-success-threshold", f.HealthSuccessThreshold != nil}, given{"--health-start-period", f.HealthStartPeriod != nil},
		given{"--health-start-interval", f.HealthStartInterval != nil}, given{"--health-on-failure", f.HealthOnFailure != nil},
	)
}

// given is a flag and whether it stands on the command line.
type given struct {
	flag string
	is   bool
}

func firstGiven(all ...given) string {
	for _, g := range all {
		if g.is {
			return g.flag
		}
	}
	return ""
}

func setCommand(h *warrenv1.HealthCheck, value string) error {
	h.Probe = &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{value}, Shell: true}}
	return nil
}

func setHTTP(h *warrenv1.HealthCheck, value string) error {
	port, path, err := probeAddress("--health-http", value, "8080/healthz")
	if err != nil {
		return err
	}
	http := h.GetHttp()
	if http == nil {
		http = &warrenv1.HttpProbe{}
		h.Probe = &warrenv1.HealthCheck_Http{Http: http}
	}
	http.Port, http.Path = port, path
	return nil
}

func setTCP(h *warrenv1.HealthCheck, value string) error {
	port, rest, err := probeAddress("--health-tcp", value, "5432")
	if err == nil && rest != "" {
		err = fmt.Errorf("--health-tcp: %q is not a port such as 5432", value)
	}
	if err != nil {
		return err
	}
	h.Probe = &warrenv1.HealthCheck_Tcp{Tcp: &warrenv1.TcpProbe{Port: port}}
	return nil
}

func setGRPC(h *warrenv1.HealthCheck, value string) error {
	port, service, err := probeAddress("--health-grpc", value, "9000/shop.Orders")
	if err != nil {
		return err
	}
	grpc := h.GetGrpc()
	if grpc == nil {
		grpc = &warrenv1.GrpcProbe{}
		h.Probe = &warrenv1.HealthCheck_Grpc{Grpc: grpc}
	}
	grpc.Port, grpc.Service = port, strings.TrimPrefix(service, "/")
	return nil
}

// probeAddress splits PORT[/REST] or :PORT[/REST]; rest begins with its slash.
func probeAddress(flag, value, example string) (port uint32, rest string, err error) {
	number := strings.TrimPrefix(value, ":")
	if at := strings.IndexByte(number, '/'); at >= 0 {
		number, rest = number[:at], number[at:]
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return 0, "", fmt.Errorf("%s: %q does not begin with a port from 1 to 65535, such as %s", flag, value, example)
	}
	return uint32(n), rest, nil
}

// setTime sets *to to a time that was given; 0 stands for what is usual.
func setTime(to **durationpb.Duration, given *time.Duration) {
	switch {
	case given == nil:
	case *given == 0:
		*to = nil
	default:
		*to = durationpb.New(*given)
	}
}
