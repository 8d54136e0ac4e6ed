package ocispec

import (
	"fmt"
	"regexp"
	"strconv"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Names are what templates may speak of.
type Names struct {
	ServiceName  string
	TaskID       string
	Slot         uint32
	NodeID       string
	NodeHostname string
}

var placeholder = regexp.MustCompile(`\{\{\s*\.(Service|Task|Node)\.(\w+)\s*\}\}`)

// Expand fills in the placeholders of a text. Other text in braces is the user's own business and stays.
func (n Names) Expand(text string) (string, error) {
	if len(text) < len("{{.Task.ID}}") {
		return text, nil
	}
	var unknown string
	expanded := placeholder.ReplaceAllStringFunc(text, func(match string) string {
		parts := placeholder.FindStringSubmatch(match)
		switch parts[1] + "." + parts[2] {
		case "Service.Name":
			return n.ServiceName
		case "Task.ID":
			return n.TaskID
		case "Task.Slot":
			return strconv.FormatUint(uint64(n.Slot), 10)
		case "Node.ID":
			return n.NodeID
		case "Node.Hostname":
			return n.NodeHostname
		}
		unknown = match
		return match
	})
	if unknown != "" {
		return "", fmt.Errorf("%s is not known: use .Service.Name, .Task.ID, .Task.Slot, .Node.ID or .Node.Hostname", unknown)
	}
	return expanded, nil
}

// Hostname returns the container's own: what the template says, else the task's id.
func Hostname(names Names, container *warrenv1.ContainerSpec) (string, error) {
	if container.GetHostname() == "" {
		return names.TaskID, nil
	}
	hostname, err := names.Expand(container.GetHostname())
	if err != nil {
		return "", fmt.Errorf("hostname: %w", err)
	}
	// The kernel takes no more, although a domain name may be longer.
	const longest = 64
	if len(hostname) > longest {
		return "", fmt.Errorf("hostname: %q is longer than the %d characters Linux allows", hostname, longest)
	}
	return hostname, nil
}
