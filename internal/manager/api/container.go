package api

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// checkContainer checks of a container what every node would refuse, or could only misunderstand.
func checkContainer(c *warrenv1.ContainerSpec) []*validate.Violation {
	broken := checkTemplates(c)
	broken = append(broken, checkZeroBytes(c)...)
	broken = append(broken, checkHostname(c.GetHostname())...)
	broken = append(broken, checkMounts(c.GetMounts())...)
	return append(broken, checkUlimits(c.GetUlimits())...)
}

// checkZeroBytes refuses text that would end too early where it is handed to the kernel.
func checkZeroBytes(c *warrenv1.ContainerSpec) []*validate.Violation {
	var broken []*validate.Violation
	check := func(text string, path ...*validate.FieldPathElement) {
		if strings.IndexByte(text, 0) >= 0 {
			broken = append(broken, violation("zero_byte", "must not hold a zero byte", inContainer(path...)...))
		}
	}
	list := func(name string, texts []string) {
		for i, text := range texts {
			check(text, item(name, i))
		}
	}
	list("command", c.GetCommand())
	list("args", c.GetArgs())
	list("groups", c.GetGroups())
	check(c.GetUser(), field("user"))
	check(c.GetWorkdir(), field("workdir"))
	for i, mount := range c.GetMounts() {
		check(mount.GetSource(), item("mounts", i), field("source"))
		check(mount.GetTarget(), item("mounts", i), field("target"))
	}
	return broken
}

// hostname is what programs and /etc/hosts take as a name.
var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// checkHostname checks a name as if its placeholders were filled in.
func checkHostname(name string) []*validate.Violation {
	if name == "" || hostname.MatchString(placeholder.ReplaceAllString(name, "x")) {
		return nil
	}
	return []*validate.Violation{violation("hostname",
		"must be letters, digits and . _ -, beginning and ending with a letter or digit; it may hold {{.Service.Name}}, {{.Task.ID}}, {{.Task.Slot}}, {{.Node.ID}} and {{.Node.Hostname}}",
		inContainer(field("hostname"))...)}
}

// checkMounts refuses to mount over the root, and twice at one place.
func checkMounts(mounts []*warrenv1.Mount) []*validate.Violation {
	var broken []*validate.Violation
	taken := make(map[string]bool, len(mounts))
	for i, mount := range mounts {
		target := path.Clean(mount.GetTarget())
		message := ""
		switch {
		case target == "/":
			message = patterns["spec.task.container.mounts.target"]
		case taken[target]:
			message = fmt.Sprintf("two mounts have the target %s", target)
		}
		if message != "" {
			broken = append(broken, violation("mount.target", message, inContainer(item("mounts", i), field("target"))...))
		}
		taken[target] = true
	}
	return broken
}

// checkUlimits refuses a soft limit above the hard one, and a limit given twice.
func checkUlimits(ulimits []*warrenv1.Ulimit) []*validate.Violation {
	var broken []*validate.Violation
	taken := make(map[string]bool, len(ulimits))
	for i, u := range ulimits {
		// -1, unlimited, is the largest number.
		if uint64(u.GetSoft()) > uint64(u.GetHard()) {
			broken = append(broken, violation("ulimit", "is above the hard limit: raise that or lower this", inContainer(item("ulimits", i), field("soft"))...))
		}
		if taken[u.GetName()] {
			broken = append(broken, violation("ulimit", fmt.Sprintf("the limit %s is given twice", u.GetName()), inContainer(item("ulimits", i), field("name"))...))
		}
		taken[u.GetName()] = true
	}
	return broken
}
