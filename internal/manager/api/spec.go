package api

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/distribution/reference"

	"github.com/cuemby/warren/internal/manager/placement"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// checkService checks what the rules in the proto cannot say of a service's spec.
func checkService(spec *warrenv1.ServiceSpec) error {
	var broken []*validate.Violation
	broken = append(broken, checkName(spec.GetName())...)
	broken = append(broken, checkImage(spec.GetTask().GetContainer().GetImage())...)
	broken = append(broken, checkContainer(spec.GetTask().GetContainer())...)
	broken = append(broken, checkPlacement(spec.GetPlacement())...)
	broken = append(broken, checkReservations(spec.GetTask())...)
	broken = append(broken, checkNetworks(spec)...)
	broken = append(broken, checkPorts(spec)...)
	broken = append(broken, checkHealth(spec.GetTask().GetHealth())...)
	broken = append(broken, checkRestart(spec.GetTask().GetRestart())...)
	broken = append(broken, checkPolicies(spec)...)
	if len(broken) > 0 {
		return invalid(broken...)
	}
	return nil
}

// label is what DNS takes as one part of a name (RFC 1123, in lower case); the proto bounds its length.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func checkName(name string) []*validate.Violation {
	if label.MatchString(name) {
		return nil
	}
	return []*validate.Violation{violation("service.name", dnsLabel, field("spec"), field("name"))}
}

func checkImage(image string) []*validate.Violation {
	if isImage(image) {
		return nil
	}
	message := fmt.Sprintf("%q is not an image reference: ", image)
	if _, rest, ok := strings.Cut(image, "://"); ok {
		message += fmt.Sprintf("leave out the scheme: write %q", rest)
	} else if lower := lowerName(image); isImage(lower) {
		message += fmt.Sprintf("names are lower-case: write %q", lower)
	} else {
		message += "write NAME[:TAG][@DIGEST], such as nginx:1.27 or registry.example:5000/team/app:2"
	}
	return []*validate.Violation{violation("image", message, inContainer(field("image"))...)}
}

func isImage(image string) bool {
	_, err := reference.ParseNormalizedNamed(image)
	return err == nil
}

// lowerName makes the name in an image reference lower-case and leaves its tag as it is.
func lowerName(image string) string {
	end := len(image)
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		end = colon
	}
	return strings.ToLower(image[:end]) + image[end:]
}

func checkPlacement(p *warrenv1.Placement) []*validate.Violation {
	var broken []*validate.Violation
	for i, expr := range p.GetConstraints() {
		if _, err := placement.Parse(expr); err != nil {
			broken = append(broken, violation("constraint", err.Error(), field("spec"), field("placement"), item("constraints", i)))
		}
	}
	for i, key := range p.GetSpread() {
		if _, err := placement.ParsePreference(key); err != nil {
			broken = append(broken, violation("spread", err.Error(), field("spec"), field("placement"), item("spread", i)))
		}
	}
	return broken
}

// checkReservations refuses to set aside for a task what its limit keeps it from using.
func checkReservations(t *warrenv1.TaskSpec) []*validate.Violation {
	var broken []*validate.Violation
	for _, r := range []struct {
		name            string
		reserved, limit int64
		words           func(int64) string
	}{
		{"nano_cpus", t.GetReservations().GetNanoCpus(), t.GetLimits().GetNanoCpus(), func(n int64) string {
			return strconv.FormatFloat(float64(n)/1e9, 'f', -1, 64) + " processors"
		}},
		{"memory_bytes", t.GetReservations().GetMemoryBytes(), t.GetLimits().GetMemoryBytes(), func(n int64) string {
			return strconv.FormatInt(n, 10) + " bytes"
		}},
	} {
		if r.limit > 0 && r.reserved > r.limit {
			broken = append(broken, violation("reservation",
				fmt.Sprintf("reserved are %s, but the limit is %s: raise the limit or reserve less", r.words(r.reserved), r.words(r.limit)),
				field("spec"), field("task"), field("reservations"), field(r.name)))
		}
	}
	return broken
}

// placeholder is what an agent fills in; other text in braces is the user's own.
var placeholder = regexp.MustCompile(`\{\{\s*\.((?:Service|Task|Node)\.\w+)\s*\}\}`)

var knownPlaceholders = map[string]bool{
	"Service.Name": true, "Task.ID": true, "Task.Slot": true, "Node.ID": true, "Node.Hostname": true,
}

// checkTemplates checks that the placeholders in a container's fields are ones that exist.
func checkTemplates(c *warrenv1.ContainerSpec) []*validate.Violation {
	var broken []*validate.Violation
	check := func(text string, path ...*validate.FieldPathElement) {
		if !strings.Contains(text, "{{") {
			return
		}
		for _, match := range placeholder.FindAllStringSubmatch(text, -1) {
			if !knownPlaceholders[match[1]] {
				broken = append(broken, violation("template", match[0]+
					" is not known: use {{.Service.Name}}, {{.Task.ID}}, {{.Task.Slot}}, {{.Node.ID}} or {{.Node.Hostname}}", inContainer(path...)...))
			}
		}
	}
	for i, variable := range c.GetEnv() {
		check(variable, item("env", i))
	}
	check(c.GetHostname(), field("hostname"))
	for i, mount := range c.GetMounts() {
		check(mount.GetSource(), item("mounts", i), field("source"))
		check(mount.GetTarget(), item("mounts", i), field("target"))
	}
	return broken
}

// inContainer makes the path of a field of the container's spec in a request.
func inContainer(path ...*validate.FieldPathElement) []*validate.FieldPathElement {
	return append([]*validate.FieldPathElement{field("spec"), field("task"), field("container")}, path...)
}

// warnings tells what the user should know of a spec although it is in order.
func warnings(s state.Snapshot, spec *warrenv1.ServiceSpec) []string {
	return append(placementWarnings(s, spec), portWarnings(spec)...)
}

func placementWarnings(s state.Snapshot, spec *warrenv1.ServiceSpec) []string {
	if len(spec.GetPlacement().GetConstraints()) == 0 && len(spec.GetPlacement().GetPlatforms()) == 0 {
		return nil
	}
	rules, err := placement.Compile(spec.GetPlacement())
	if err != nil {
		return nil // refused before it comes here
	}
	nodes, met := 0, make([]bool, len(rules.Constraints()))
	onPlatform, admitted := false, false
	for n := range s.Nodes() {
		nodes++
		for i, c := range rules.Constraints() {
			met[i] = met[i] || c.Matches(n)
		}
		onPlatform = onPlatform || rules.OnPlatform(n)
		admitted = admitted || rules.Admits(n)
	}
	if nodes == 0 || admitted {
		return nil
	}
	var said []string
	for i, c := range rules.Constraints() {
		if !met[i] {
			said = append(said, fmt.Sprintf("no node meets the constraint %s at the moment", c))
		}
	}
	if !onPlatform {
		said = append(said, fmt.Sprintf("no node is of platform %s at the moment", strings.Join(spec.GetPlacement().GetPlatforms(), " or ")))
	}
	if len(said) == 0 {
		said = append(said, "no node meets all of the placement's constraints and platforms at once at the moment")
	}
	return said
}
