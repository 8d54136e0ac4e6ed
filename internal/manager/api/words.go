package api

import (
	"regexp"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
)

const dnsLabel = "must be a DNS label: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"

// patterns says for people what the fields must look like for which the proto has a regular expression.
var patterns = map[string]string{
	"spec.name":                       dnsLabel,
	"spec.networks.aliases":           dnsLabel,
	"spec.endpoint.ports.name":        dnsLabel,
	"spec.task.host_ports.name":       dnsLabel,
	"spec.labels":                     "a label's key is 1 to 128 letters, digits and _ . / -, beginning and ending with a letter or digit",
	"spec.placement.spread":           "must be node.labels.KEY or engine.labels.KEY",
	"spec.placement.platforms":        "must be OS/ARCH in lower case, such as linux/arm64",
	"spec.task.container.env":         "must be KEY=VALUE, without a zero byte",
	"spec.task.container.workdir":     "must be an absolute path in the container",
	"spec.task.container.cap_add":     "must be the name of a capability, such as NET_ADMIN",
	"spec.task.container.cap_drop":    "must be the name of a capability, such as NET_ADMIN",
	"spec.task.container.sysctls":     "must be the name of a kernel parameter, such as net.core.somaxconn",
	"spec.task.container.stop_signal": "must be the name of a signal or its number, such as SIGTERM",

	"spec.task.health.http.path":    "must begin with / and hold no blanks, such as /healthz?full=1",
	"spec.task.health.http.method":  "must be an HTTP method in capitals, such as GET or HEAD",
	"spec.task.health.http.headers": "must be NAME: VALUE, in one line",
	"spec.task.health.http.status":  "must be statuses from 100 to 599 and ranges of them, such as 200,204,300-399",

	"spec.task.container.mounts.source": "must be an absolute path on the node",
	"spec.task.container.mounts.target": "must be an absolute path in the container, below /",
}

// reword puts into words what the engine of the rules says in signs.
func reword(violations []*validate.Violation) {
	for _, v := range violations {
		switch rule := v.GetRuleId(); {
		case strings.HasPrefix(rule, "duration."):
			v.Message = new(seconds.ReplaceAllStringFunc(v.GetMessage(), humanly))
		case rule == "string.pattern":
			if words := patterns[plainPath(v.GetField())]; words != "" {
				v.Message = &words
			}
		case rule == "string.min_len":
			if v.GetMessage() == "must be at least 1 characters" {
				v.Message = new("must not be empty")
			}
		}
	}
}

// seconds are how the engine writes durations.
var seconds = regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?s\b`)

// humanly writes a number of seconds as people write durations, 24h and not 86400s.
func humanly(text string) string {
	d, err := time.ParseDuration(text)
	if err != nil {
		return text
	}
	return plainDuration(d)
}

// plainDuration writes a duration without what is zero: 24h and not 24h0m0s.
func plainDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// plainPath is a field's path without subscripts.
func plainPath(path *validate.FieldPath) string {
	names := make([]string, len(path.GetElements()))
	for i, e := range path.GetElements() {
		names[i] = e.GetFieldName()
	}
	return strings.Join(names, ".")
}
