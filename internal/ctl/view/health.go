package view

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// HealthState is a state of health in a word; none of what is not probed.
func HealthState(s warrenv1.HealthState) string {
	if s == warrenv1.HealthState_HEALTH_STATE_UNSPECIFIED {
		return "none"
	}
	return word(s.String(), "HEALTH_STATE_")
}

// Health says how a task that is probed is, in a few words: unhealthy: 3 failed probes. Empty of others.
func Health(h *warrenv1.TaskHealth) string {
	state := HealthState(h.GetState())
	failed := ""
	if n := h.GetFailures(); n > 0 {
		failed = ": " + count(int(n), "failed probe", "failed probes")
	}
	switch h.GetState() {
	case warrenv1.HealthState_HEALTH_STATE_UNSPECIFIED:
		return ""
	case warrenv1.HealthState_HEALTH_STATE_STARTING:
		return "health: starting" + strings.Replace(failed, ": ", ", ", 1)
	case warrenv1.HealthState_HEALTH_STATE_HEALTHY:
		return state + strings.Replace(failed, ": ", ", ", 1)
	default:
		return state + failed
	}
}

// healthColour is what a running task's health tells at a glance.
func healthColour(s *warrenv1.TaskStatus) output.Colour {
	if s.GetState() != warrenv1.TaskState_TASK_STATE_RUNNING {
		return StateColour(s.GetState())
	}
	switch s.GetHealth().GetState() {
	case warrenv1.HealthState_HEALTH_STATE_UNHEALTHY:
		return output.Bad
	case warrenv1.HealthState_HEALTH_STATE_STARTING:
		return output.Warning
	default:
		return output.Good
	}
}

// taskHealth adds how a task is, and what befell it.
func (p *page) taskHealth(s *warrenv1.TaskStatus, now time.Time) {
	h := s.GetHealth()
	p.under("Health", func() {
		if h.GetState() == warrenv1.HealthState_HEALTH_STATE_UNSPECIFIED {
			return
		}
		p.say("State", HealthState(h.GetState()))
		p.say("Since", when(h.GetSince(), now))
		p.amount("Failed probes", int64(h.GetFailures()))
		if out := strings.TrimRight(h.GetOutput(), "\r\n"); out != "" {
			p.list("Last output", strings.Split(out, "\n"))
		}
	})
	var befell []string
	for _, i := range s.GetIncidents() {
		said := when(i.GetAt(), now)
		if n := i.GetAttempt(); n > 0 {
			said += ", attempt " + strconv.FormatUint(uint64(n), 10)
		}
		said += ": " + word(i.GetKind().String(), "INCIDENT_KIND_")
		// What a node says of an unhealthy task may begin with that.
		if m := output.OneLine(strings.TrimPrefix(i.GetMessage(), "unhealthy: ")); m != "" {
			said += ": " + m
		}
		befell = append(befell, said)
	}
	p.list("Incidents", befell)
}

// healthCheck adds how tasks are probed.
func (p *page) healthCheck(h *warrenv1.HealthCheck) {
	p.under("Health check", func() {
		if h.GetDisabled() {
			p.say("Probe", "none, whatever the image says")
			return
		}
		if h == nil {
			return
		}
		p.say("Probe", probe(h))
		if http := h.GetHttp(); http != nil {
			p.list("Headers", http.GetHeaders())
			p.say("Status", http.GetStatus())
			p.say("Body", http.GetBody())
			p.say("Server name", http.GetServerName())
		}
		p.say("Interval", duration(h.GetInterval()))
		p.say("Timeout", duration(h.GetTimeout()))
		p.amount("Retries", int64(h.GetRetries()))
		p.amount("Success threshold", int64(h.GetSuccessThreshold()))
		p.say("Start period", duration(h.GetStartPeriod()))
		p.say("Start interval", duration(h.GetStartInterval()))
		if a := h.GetOnFailure(); a != 0 {
			p.say("On failure", word(a.String(), "UNHEALTHY_ACTION_"))
		}
	})
}

// probe says how tasks are probed in a line.
func probe(h *warrenv1.HealthCheck) string {
	tls := func(on, unverified bool) string {
		switch {
		case on && unverified:
			return ", TLS with any certificate"
		case on:
			return ", TLS"
		}
		return ""
	}
	switch p := h.GetProbe().(type) {
	case *warrenv1.HealthCheck_Http:
		method, path := p.Http.GetMethod(), p.Http.GetPath()
		if method == "" {
			method = "GET"
		}
		if path == "" {
			path = "/"
		}
		return fmt.Sprintf("HTTP %s %s on port %d", method, path, p.Http.GetPort()) + tls(p.Http.GetTls(), p.Http.GetTlsSkipVerify())
	case *warrenv1.HealthCheck_Tcp:
		return fmt.Sprintf("TCP on port %d", p.Tcp.GetPort())
	case *warrenv1.HealthCheck_Grpc:
		said := fmt.Sprintf("gRPC on port %d", p.Grpc.GetPort())
		if p.Grpc.GetService() != "" {
			said += " of " + p.Grpc.GetService()
		}
		return said + tls(p.Grpc.GetTls(), true)
	case *warrenv1.HealthCheck_Exec:
		if p.Exec.GetShell() {
			return "command, by the shell: " + strings.Join(p.Exec.GetCommand(), " ")
		}
		return "command: " + quoted(p.Exec.GetCommand())
	default:
		return "the image's own, if it has one"
	}
}
