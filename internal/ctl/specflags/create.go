package specflags

import (
	"fmt"
	"os"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Create are the flags of `service create` that make the spec.
type Create struct {
	Name string `help:"Name of the service; default: made from the image's." placeholder:"NAME"`
	Mode string `enum:"replicated,global" default:"replicated" help:"replicated (a number of tasks) or global (one on every node)." placeholder:"MODE"`

	Settings

	Env            []string `short:"e" sep:"none" group:"Container" help:"Environment variable; without a value, warrenctl's own." placeholder:"KEY=VALUE"`
	EnvFile        []string `sep:"none" group:"Container" help:"File of environment variables, one a line." placeholder:"PATH"`
	Label          []string `short:"l" sep:"none" help:"Label of the service." placeholder:"KEY=VALUE"`
	ContainerLabel []string `sep:"none" group:"Container" help:"Label of the containers." placeholder:"KEY=VALUE"`
	Group          []string `sep:"none" group:"Container" help:"Further group of the user." placeholder:"GROUP"`
	Mount          []string `sep:"none" group:"Container" help:"Mount: type=bind|tmpfs,source=PATH,target=PATH,readonly,tmpfs-size=64m,tmpfs-mode=1777." placeholder:"MOUNT"`
	CapAdd         []string `sep:"none" group:"Container" help:"Capability to add." placeholder:"CAP"`
	CapDrop        []string `sep:"none" group:"Container" help:"Capability to drop." placeholder:"CAP"`
	Ulimit         []string `sep:"none" group:"Container" help:"Limit of a process, such as nofile=1024:2048." placeholder:"NAME=SOFT[:HARD]"`
	Sysctl         []string `sep:"none" group:"Container" help:"Kernel parameter of the container." placeholder:"KEY=VALUE"`
	Network        []string `sep:"none" group:"Network" help:"Network to be on, by name or as name=NAME,alias=NAME (default); or host (the node's own), or none (loopback alone)." placeholder:"NETWORK" complete:"network"`
	Publish        []string `short:"p" sep:"none" group:"Network" help:"Open a port on every node that leads to the tasks: 8080:80, 53:53/udp, 8000-8005:8000-8005, or 80 alone for a port that Warren chooses; host:8080:80 on the tasks' own nodes alone; or in full published=8080,target=80,protocol=tcp,mode=ingress|host,name=http." placeholder:"[host:][PUBLISHED:]TARGET[/udp]"`
	Constraint     []string `sep:"none" group:"Placement" help:"Only nodes for which this holds, such as node.labels.zone==eu." placeholder:"EXPRESSION"`
	PlacementPref  []string `sep:"none" group:"Placement" help:"Spread evenly over the values of a label: spread=node.labels.zone." placeholder:"spread=LABEL"`
}

// Spec returns the spec that the flags describe, for image with args in place of its own. Its name is
// empty if none was given.
func (f *Create) Spec(image string, args []string) (*warrenv1.ServiceSpec, error) {
	container := &warrenv1.ContainerSpec{Image: image, Args: args, Groups: f.Group, CapAdd: f.CapAdd, CapDrop: f.CapDrop}
	spec := &warrenv1.ServiceSpec{Name: f.Name, Task: &warrenv1.TaskSpec{Container: container}}
	if f.Mode == "global" {
		spec.Mode = &warrenv1.ServiceSpec_Global{Global: &warrenv1.GlobalMode{}}
	} else {
		spec.Mode = &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 1}}
	}
	if err := f.apply(spec); err != nil {
		return nil, err
	}

	var err error
	if container.Env, err = environment(f.EnvFile, f.Env, os.LookupEnv); err != nil {
		return nil, err
	}
	if spec.Labels, err = pairs("--label", f.Label); err != nil {
		return nil, err
	}
	if container.Labels, err = pairs("--container-label", f.ContainerLabel); err != nil {
		return nil, err
	}
	if container.Sysctls, err = pairs("--sysctl", f.Sysctl); err != nil {
		return nil, err
	}
	if container.Mounts, err = each(f.Mount, mount); err != nil {
		return nil, err
	}
	if container.Ulimits, err = each(f.Ulimit, ulimit); err != nil {
		return nil, err
	}
	if err := applyNetworks(spec, f.Network); err != nil {
		return nil, err
	}
	ports, err := publications("--publish", f.Publish)
	if err != nil {
		return nil, err
	}
	for _, p := range ports { // as they are: what contradicts itself is refused
		if p.host {
			spec.Task.HostPorts = append(spec.Task.HostPorts, p.PortSpec)
		} else {
			made(&spec.Endpoint).Ports = append(made(&spec.Endpoint).Ports, p.PortSpec)
		}
	}
	if len(f.Constraint) > 0 {
		made(&spec.Placement).Constraints = f.Constraint
	}
	if len(f.PlacementPref) > 0 {
		if made(&spec.Placement).Spread, err = each(f.PlacementPref, spread); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// longestName leaves room for a number within the 63 characters of a DNS label.
const longestName = 58

// NameFor makes a service name from an image's: nginx from docker.io/library/nginx:1.27. The first
// has no number; the others, for when it is taken, end in -2, -3 and so on.
func NameFor(image string, number int) string {
	image, _, _ = strings.Cut(image, "@")
	image = image[strings.LastIndexByte(image, '/')+1:]
	image, _, _ = strings.Cut(image, ":")
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, image)
	name = strings.Trim(name[:min(len(name), longestName)], "-")
	if name == "" {
		name = "service"
	}
	if number > 1 {
		name = fmt.Sprintf("%s-%d", name, number)
	}
	return name
}
