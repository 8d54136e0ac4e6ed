package specflags

import (
	"maps"
	"os"
	"slices"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Update are the flags of `service update`. Lists have a flag that adds and one that removes; adding
// what is there under the same key replaces it.
type Update struct {
	Image *string `help:"Image to run." placeholder:"IMAGE"`
	Args  *string `help:"Arguments in place of the image's, in one string; empty for the image's." placeholder:"ARGS"`
	Force bool    `help:"Replace all tasks even if nothing of theirs changes."`

	Settings

	EnvAdd            []string `short:"e" aliases:"env" sep:"none" group:"Container" help:"Add or change an environment variable." placeholder:"KEY=VALUE"`
	EnvFile           []string `sep:"none" group:"Container" help:"Add or change those of a file, one a line." placeholder:"PATH"`
	EnvRm             []string `sep:"none" group:"Container" help:"Remove an environment variable." placeholder:"KEY"`
	LabelAdd          []string `short:"l" aliases:"label" sep:"none" help:"Add or change a label of the service." placeholder:"KEY=VALUE"`
	LabelRm           []string `sep:"none" help:"Remove a label of the service." placeholder:"KEY"`
	ContainerLabelAdd []string `aliases:"container-label" sep:"none" group:"Container" help:"Add or change a label of the containers." placeholder:"KEY=VALUE"`
	ContainerLabelRm  []string `sep:"none" group:"Container" help:"Remove a label of the containers." placeholder:"KEY"`
	GroupAdd          []string `aliases:"group" sep:"none" group:"Container" help:"Add a further group of the user." placeholder:"GROUP"`
	GroupRm           []string `sep:"none" group:"Container" help:"Remove a further group." placeholder:"GROUP"`
	MountAdd          []string `aliases:"mount" sep:"none" group:"Container" help:"Add a mount, or change the one with its target." placeholder:"MOUNT"`
	MountRm           []string `sep:"none" group:"Container" help:"Remove the mount with this target." placeholder:"TARGET"`
	CapAdd            []string `sep:"none" group:"Container" help:"Add a capability." placeholder:"CAP"`
	CapDrop           []string `sep:"none" group:"Container" help:"Drop a capability." placeholder:"CAP"`
	UlimitAdd         []string `aliases:"ulimit" sep:"none" group:"Container" help:"Add or change a limit of a process." placeholder:"NAME=SOFT[:HARD]"`
	UlimitRm          []string `sep:"none" group:"Container" help:"Remove a limit of a process." placeholder:"NAME"`
	SysctlAdd         []string `aliases:"sysctl" sep:"none" group:"Container" help:"Add or change a kernel parameter." placeholder:"KEY=VALUE"`
	SysctlRm          []string `sep:"none" group:"Container" help:"Remove a kernel parameter." placeholder:"KEY"`
	Network           []string `sep:"none" group:"Network" help:"Network to be on in place of those it is on, by name or as name=NAME,alias=NAME; or host (the node's own), or none (loopback alone)." placeholder:"NETWORK" complete:"network"`
	NetworkAdd        []string `sep:"none" group:"Network" help:"Add a network, or change its aliases." placeholder:"NETWORK" complete:"network"`
	NetworkRm         []string `sep:"none" group:"Network" help:"Remove a network." placeholder:"NETWORK" complete:"network"`
	PublishAdd        []string `short:"p" aliases:"publish" sep:"none" group:"Network" help:"Publish a port, as --publish of service create; one that is published already leads elsewhere then." placeholder:"PORT"`
	PublishRm         []string `sep:"none" group:"Network" help:"Cease to publish a port of the tasks, or one of several that lead there as PUBLISHED:TARGET." placeholder:"TARGET[/udp]"`
	ConstraintAdd     []string `aliases:"constraint" sep:"none" group:"Placement" help:"Add a placement constraint." placeholder:"EXPRESSION"`
	ConstraintRm      []string `sep:"none" group:"Placement" help:"Remove a placement constraint." placeholder:"EXPRESSION"`
	PlacementPrefAdd  []string `aliases:"placement-pref" sep:"none" group:"Placement" help:"Add a label to spread over: spread=node.labels.zone." placeholder:"spread=LABEL"`
	PlacementPrefRm   []string `sep:"none" group:"Placement" help:"Remove a label to spread over." placeholder:"spread=LABEL"`
}

// Apply changes spec as the flags say. Removals come before additions, so that both of one key leave
// the added.
func (f *Update) Apply(spec *warrenv1.ServiceSpec) error {
	container := made(&made(&spec.Task).Container)
	if err := f.apply(spec); err != nil {
		return err
	}
	set(&container.Image, f.Image)
	if f.Args != nil {
		args, err := words("--args", *f.Args)
		if err != nil {
			return err
		}
		container.Args = args
	}
	if f.Force {
		spec.Task.Force++
	}
	if err := f.applyContainerLists(container); err != nil {
		return err
	}
	if err := changePairs(&spec.Labels, "--label-add", f.LabelAdd, f.LabelRm); err != nil {
		return err
	}
	if err := f.applyConnections(spec); err != nil {
		return err
	}
	return f.applyPlacementLists(spec)
}

func (f *Update) applyConnections(spec *warrenv1.ServiceSpec) error {
	if err := applyNetworks(spec, f.Network); err != nil {
		return err
	}
	if err := changeNetworks(spec, f.NetworkAdd, f.NetworkRm); err != nil {
		return err
	}
	if err := removePorts(spec, f.PublishRm); err != nil {
		return err
	}
	ports, err := publications("--publish-add", f.PublishAdd)
	if err != nil {
		return err
	}
	addPorts(spec, ports)
	return nil
}

func (f *Update) applyContainerLists(c *warrenv1.ContainerSpec) error {
	added, err := environment(f.EnvFile, f.EnvAdd, os.LookupEnv)
	if err != nil {
		return err
	}
	c.Env = slices.DeleteFunc(c.Env, func(entry string) bool {
		key, _, _ := strings.Cut(entry, "=")
		return slices.Contains(f.EnvRm, key)
	})
	for _, entry := range added {
		c.Env = putKey(c.Env, entry)
	}

	if err := changePairs(&c.Labels, "--container-label-add", f.ContainerLabelAdd, f.ContainerLabelRm); err != nil {
		return err
	}
	if err := changePairs(&c.Sysctls, "--sysctl-add", f.SysctlAdd, f.SysctlRm); err != nil {
		return err
	}
	c.Groups = changeList(c.Groups, f.GroupAdd, f.GroupRm, same)

	mounts, err := each(f.MountAdd, mount)
	if err != nil {
		return err
	}
	c.Mounts = changeKeyed(c.Mounts, mounts, f.MountRm, (*warrenv1.Mount).GetTarget)
	ulimits, err := each(f.UlimitAdd, ulimit)
	if err != nil {
		return err
	}
	c.Ulimits = changeKeyed(c.Ulimits, ulimits, f.UlimitRm, (*warrenv1.Ulimit).GetName)

	// A capability is in one of the two lists at most: the flag given last decides.
	c.CapAdd, c.CapDrop = changeList(c.CapAdd, f.CapAdd, f.CapDrop, sameCapability),
		changeList(c.CapDrop, f.CapDrop, f.CapAdd, sameCapability)
	return nil
}

func (f *Update) applyPlacementLists(spec *warrenv1.ServiceSpec) error {
	if f.ConstraintAdd != nil || f.ConstraintRm != nil {
		p := made(&spec.Placement)
		p.Constraints = changeList(p.Constraints, f.ConstraintAdd, f.ConstraintRm, sameConstraint)
	}
	if f.PlacementPrefAdd == nil && f.PlacementPrefRm == nil {
		return nil
	}
	add, err := each(f.PlacementPrefAdd, spread)
	if err != nil {
		return err
	}
	remove, err := each(f.PlacementPrefRm, spread)
	if err != nil {
		return err
	}
	p := made(&spec.Placement)
	p.Spread = changeList(p.Spread, add, remove, same)
	return nil
}

// changePairs removes keys from a map and adds KEY=VALUE values to it.
func changePairs(m *map[string]string, flag string, add, remove []string) error {
	added, err := pairs(flag, add)
	if err != nil {
		return err
	}
	for _, key := range remove {
		delete(*m, key)
	}
	if len(added) > 0 && *m == nil {
		*m = map[string]string{}
	}
	maps.Copy(*m, added)
	return nil
}

// changeList removes values from a list and adds those it lacks.
func changeList(list, add, remove []string, equal func(a, b string) bool) []string {
	has := func(in []string, v string) bool {
		return slices.ContainsFunc(in, func(other string) bool { return equal(v, other) })
	}
	list = slices.DeleteFunc(list, func(v string) bool { return has(remove, v) })
	for _, v := range add {
		if !has(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// changeKeyed removes keys from a list and adds values, each in the place of the one with its key.
func changeKeyed[T any](list, add []T, remove []string, key func(T) string) []T {
	list = slices.DeleteFunc(list, func(v T) bool { return slices.Contains(remove, key(v)) })
	for _, v := range add {
		at := slices.IndexFunc(list, func(old T) bool { return key(old) == key(v) })
		if at < 0 {
			list = append(list, v)
		} else {
			list[at] = v
		}
	}
	return list
}

func same(a, b string) bool { return a == b }

// sameCapability compares capabilities as the kernel's names do: without case, with or without CAP_.
func sameCapability(a, b string) bool {
	return strings.TrimPrefix(strings.ToUpper(a), "CAP_") == strings.TrimPrefix(strings.ToUpper(b), "CAP_")
}

// sameConstraint compares constraints without regard to blanks.
func sameConstraint(a, b string) bool {
	return strings.ReplaceAll(a, " ", "") == strings.ReplaceAll(b, " ", "")
}
