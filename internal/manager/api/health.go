package api

import (
	"fmt"
	"regexp"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// checkHealth checks what the rules in the proto cannot say of a health check.
func checkHealth(h *warrenv1.HealthCheck) []*validate.Violation {
	var broken []*validate.Violation
	if h.GetDisabled() && h.GetProbe() != nil {
		broken = append(broken, violation("health.disabled", "a task that is not probed needs no probe: leave one of the two out", inHealth(field("disabled"))...))
	}
	if h.GetHttp() != nil {
		broken = append(broken, checkHTTP(h.GetHttp())...)
	}
	if h.GetExec() != nil {
		broken = append(broken, checkExec(h.GetExec())...)
	}
	return broken
}

// checkHTTP checks what an HTTP probe asks and expects.
func checkHTTP(p *warrenv1.HttpProbe) []*validate.Violation {
	var broken []*validate.Violation
	for part := range strings.SplitSeq(p.GetStatus(), ",") {
		// All have three digits, so that they compare as text.
		if low, high, ranges := strings.Cut(part, "-"); ranges && low > high {
			broken = append(broken, violation("health.status", fmt.Sprintf("the range %s holds nothing: write %s-%s", part, high, low), inHealth(field("http"), field("status"))...))
		}
	}
	if _, err := regexp.Compile(p.GetBody()); err != nil {
		broken = append(broken, violation("health.body", fmt.Sprintf("%v: write a regular expression that RE2 knows, such as ^ok$", err), inHealth(field("http"), field("body"))...))
	}
	if !p.GetTls() && p.GetTlsSkipVerify() {
		broken = append(broken, violation("health.tls", "there is no certificate to be verified without TLS: set tls, or leave this out", inHealth(field("http"), field("tls_skip_verify"))...))
	}
	if !p.GetTls() && p.GetServerName() != "" {
		broken = append(broken, violation("health.tls", "there is no certificate to have a name without TLS: set tls, or leave this out", inHealth(field("http"), field("server_name"))...))
	}
	return broken
}

// checkExec checks the program that an exec probe runs.
func checkExec(p *warrenv1.ExecProbe) []*validate.Violation {
	var broken []*validate.Violation
	if len(p.GetCommand()) > 0 && strings.TrimSpace(p.GetCommand()[0]) == "" {
		broken = append(broken, violation("health.command", "must not be empty: name the program to run", inHealth(field("exec"), item("command", 0))...))
	}
	if p.GetShell() && len(p.GetCommand()) > 1 {
		broken = append(broken, violation("health.command", "the shell is given one text to run: write the command as one, or leave out shell", inHealth(field("exec"), item("command", 1))...))
	}
	for i, text := range p.GetCommand() {
		if strings.IndexByte(text, 0) >= 0 {
			broken = append(broken, violation("zero_byte", "must not hold a zero byte", inHealth(field("exec"), item("command", i))...))
		}
	}
	return broken
}

// inHealth makes the path of a field of the health check in a request.
func inHealth(path ...*validate.FieldPathElement) []*validate.FieldPathElement {
	return append([]*validate.FieldPathElement{field("spec"), field("task"), field("health")}, path...)
}
