package specflags

import (
	"fmt"
	"slices"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// attachment reads the value of --network: a network's name, or comma-separated KEY=VALUE as Docker has them.
func attachment(flag, value string) (*warrenv1.NetworkAttachment, error) {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s %s: %s", flag, value, fmt.Sprintf(format, args...))
	}
	if !strings.ContainsAny(value, "=,") {
		if value == "" {
			return nil, fmt.Errorf("%s: the name of a network is missing", flag)
		}
		return &warrenv1.NetworkAttachment{Network: value}, nil
	}
	a := &warrenv1.NetworkAttachment{}
	for part := range strings.SplitSeq(value, ",") {
		key, v, ok := strings.Cut(part, "=")
		if !ok || v == "" {
			return nil, fail("%q is not KEY=VALUE, such as name=shop,alias=db", part)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "name":
			if a.Network != "" {
				return nil, fail("name is given twice: use the flag once for each network")
			}
			a.Network = v
		case "alias":
			a.Aliases = append(a.Aliases, v)
		default:
			return nil, fail("%s is not known: name and alias are", key)
		}
	}
	if a.Network == "" {
		return nil, fail("name is missing")
	}
	return a, nil
}

func attachments(flag string, values []string) ([]*warrenv1.NetworkAttachment, error) {
	return each(values, func(v string) (*warrenv1.NetworkAttachment, error) { return attachment(flag, v) })
}

// modes are the words of --network that are no networks of the cluster.
var modes = map[string]warrenv1.NetworkMode{
	"none": warrenv1.NetworkMode_NETWORK_MODE_NONE,
	"host": warrenv1.NetworkMode_NETWORK_MODE_HOST,
}

// applyNetworks writes the values of --network, if there are any, in the place of what there is.
func applyNetworks(spec *warrenv1.ServiceSpec, values []string) error {
	if len(values) == 0 {
		return nil
	}
	all, err := attachments("--network", values)
	if err != nil {
		return err
	}
	for _, a := range all {
		mode, isMode := modes[a.GetNetwork()]
		switch {
		case !isMode:
			continue
		case len(all) > 1:
			return fmt.Errorf("--network %s cannot go with other networks: it means that the tasks are on none of the cluster's", a.GetNetwork())
		case len(a.GetAliases()) > 0:
			return fmt.Errorf("--network %s: there are no aliases outside the cluster's networks", values[0])
		}
		spec.Networks, spec.Task.Network = nil, mode
		return nil
	}
	spec.Networks = all
	joinOverlay(spec)
	return nil
}

// joinOverlay gives tasks addresses of the cluster that had none.
func joinOverlay(spec *warrenv1.ServiceSpec) {
	if !onOverlay(spec) {
		spec.Task.Network = warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED
	}
}

func onOverlay(spec *warrenv1.ServiceSpec) bool {
	mode := spec.GetTask().GetNetwork()
	return mode == warrenv1.NetworkMode_NETWORK_MODE_UNSPECIFIED || mode == warrenv1.NetworkMode_NETWORK_MODE_OVERLAY
}

// defaultNetwork is the network of services that name none.
const defaultNetwork = "default"

// changeNetworks adds and removes networks.
func changeNetworks(spec *warrenv1.ServiceSpec, add, remove []string) error {
	if len(add) == 0 && len(remove) == 0 {
		return nil
	}
	added, err := attachments("--network-add", add)
	if err != nil {
		return err
	}
	for _, name := range slices.Concat(remove, names(added)) {
		if _, isMode := modes[name]; isMode {
			return fmt.Errorf("%s is no network: --network %s puts the tasks on none of the cluster's, --network NAME puts them back", name, name)
		}
	}
	if !onOverlay(spec) {
		return fmt.Errorf("--network-add and --network-rm: the tasks are on none of the cluster's networks: use --network NAME")
	}
	is := spec.GetNetworks()
	if len(is) == 0 { // which means the default one, and is to go on meaning it
		is = []*warrenv1.NetworkAttachment{{Network: defaultNetwork}}
	}
	for _, name := range remove {
		if on := names(is); !slices.Contains(on, name) {
			return fmt.Errorf("--network-rm %s: the service is not on it, but on %s", name, strings.Join(on, ", "))
		}
	}
	is = changeKeyed(is, added, remove, (*warrenv1.NetworkAttachment).GetNetwork)
	if len(is) == 0 {
		return fmt.Errorf("--network-rm: the service would be on no network: add one with --network-add, or use --network none")
	}
	if len(is) == 1 && is[0].GetNetwork() == defaultNetwork && len(is[0].GetAliases()) == 0 && len(spec.GetNetworks()) == 0 {
		is = nil
	}
	spec.Networks = is
	return nil
}

func names(all []*warrenv1.NetworkAttachment) []string {
	var names []string
	for _, a := range all {
		names = append(names, a.GetNetwork())
	}
	return names
}
