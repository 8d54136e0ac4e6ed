package api

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Defaults of how the overlay is laid out, stored like those of the rest of the cluster's spec.
const (
	defaultNodeRange     = "10.208.0.0/12"
	defaultNodePrefix    = 24
	defaultVIPRange      = "10.224.0.0/16"
	defaultWireGuardPort = 7421
	defaultKeyLife       = 30 * 24 * time.Hour
)

const (
	// longestNodePrefix leaves five tasks to a node.
	longestNodePrefix = 29
	// nodeBits are those of the least number of nodes that a range must have room for, 16.
	nodeBits = 4
	// longestVIPRange has room for 254 services.
	longestVIPRange = 24
)

// unusable are addresses that mean something else everywhere.
var unusable = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved addresses"},
}

// resolveNetwork returns a copy of spec, which may be nil, with the defaults in its unset fields.
func resolveNetwork(spec *warrenv1.ClusterNetwork) *warrenv1.ClusterNetwork {
	resolved := &warrenv1.ClusterNetwork{}
	proto.Merge(resolved, spec)
	resolved.NodeRange = cmp.Or(resolved.GetNodeRange(), defaultNodeRange)
	resolved.NodePrefix = cmp.Or(resolved.GetNodePrefix(), defaultNodePrefix)
	resolved.VipRange = cmp.Or(resolved.GetVipRange(), defaultVIPRange)
	resolved.WireguardPort = cmp.Or(resolved.GetWireguardPort(), defaultWireGuardPort)
	resolved.KeyLife = cmp.Or(resolved.GetKeyLife(), durationpb.New(defaultKeyLife))
	return resolved
}

// checkNetwork checks how a resolved spec lays out the overlay.
func checkNetwork(spec *warrenv1.ClusterNetwork) []*validate.Violation {
	nodes, broken := checkRange("node_range", spec.GetNodeRange(), "node-range", longestNodePrefix-nodeBits)
	vips, more := checkRange("vip_range", spec.GetVipRange(), "vip-range", longestVIPRange)
	if broken = append(broken, more...); len(broken) > 0 {
		return broken
	}
	if nodes.Overlaps(vips) {
		return append(broken, inNetwork("vip_range", fmt.Sprintf("%s overlaps the nodes' range %s: give a range of its own with --vip-range, such as %s",
			vips, nodes, elsewhere(nodes, longestVIPRange-8))))
	}
	if least, prefix := uint32(nodes.Bits()+nodeBits), spec.GetNodePrefix(); prefix < least || prefix > longestNodePrefix {
		can := fmt.Sprintf("can be %d, which gives subnets to 16 nodes, to %d", least, longestNodePrefix)
		if least == longestNodePrefix {
			can = fmt.Sprintf("can only be %d, which gives subnets to 16 nodes", least)
		}
		broken = append(broken, inNetwork("node_prefix", fmt.Sprintf("is %d, but in the range %s %s: give another with --node-prefix, or a larger --node-range",
			prefix, nodes, can)))
	}
	return broken
}

// elsewhere returns a private range of that length that does not overlap another.
func elsewhere(taken netip.Prefix, length int) netip.Prefix {
	for _, addr := range []string{"10.224.0.0", "172.28.0.0", "10.96.0.0"} {
		if p := netip.PrefixFrom(netip.MustParseAddr(addr), length); !p.Overlaps(taken) {
			return p
		}
	}
	return netip.PrefixFrom(netip.MustParseAddr("192.168.0.0"), length)
}

// checkRange reads a range of IPv4 addresses, which must have the given length of prefix at most.
func checkRange(name, text, flag string, longest int) (netip.Prefix, []*validate.Violation) {
	refuse := func(format string, args ...any) (netip.Prefix, []*validate.Violation) {
		return netip.Prefix{}, []*validate.Violation{inNetwork(name, fmt.Sprintf(format, args...))}
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return refuse("%q is not a range of addresses: write ADDRESS/LENGTH, such as %s", text, defaultNodeRange)
	case !p.Addr().Is4():
		return refuse("%s is not IPv4: addresses inside the cluster are, whatever lies below: write one such as %s", text, defaultNodeRange)
	case p != p.Masked():
		return refuse("%s goes on past the length of its prefix: write %s", text, p.Masked())
	case p.Bits() > longest:
		return refuse("%s is too small: its prefix can be /%d at the longest; give a larger one with --%s", text, longest, flag)
	}
	for _, u := range unusable {
		if p.Overlaps(u.prefix) {
			return refuse("%s overlaps %s, %s, which mean something else: give another with --%s", text, u.prefix, u.what, flag)
		}
	}
	return p, nil
}

// keepNetwork returns what becomes of the overlay's layout by an update: what the update leaves out stays,
// and the ranges stay in any case, as addresses out of them are in use.
func keepNetwork(before, asked *warrenv1.ClusterNetwork) (*warrenv1.ClusterNetwork, []*validate.Violation) {
	before = resolveNetwork(before)
	after := proto.CloneOf(before)
	proto.Merge(after, asked)
	if asked.GetKeyLife() != nil { // which Merge would mix
		after.KeyLife = asked.GetKeyLife()
	}
	var broken []*validate.Violation
	for _, c := range []struct {
		name       string
		was, asked any
		changed    bool
	}{
		{"node_range", before.GetNodeRange(), after.GetNodeRange(), before.GetNodeRange() != after.GetNodeRange()},
		{"node_prefix", before.GetNodePrefix(), after.GetNodePrefix(), before.GetNodePrefix() != after.GetNodePrefix()},
		{"vip_range", before.GetVipRange(), after.GetVipRange(), before.GetVipRange() != after.GetVipRange()},
	} {
		if c.changed {
			broken = append(broken, inNetwork(c.name, fmt.Sprintf("is %v and cannot be changed to %v, as addresses are in use: only a new cluster can have another", c.was, c.asked)))
		}
	}
	return after, broken
}

func inNetwork(name, message string) *validate.Violation {
	return violation("network."+name, message, field("spec"), field("network"), field(name))
}

// hostRoutes is where Linux shows the IPv4 routes of its main table.
const hostRoutes = "/proc/net/route"

// checkRoutes refuses ranges that this machine reaches something else by.
func checkRoutes(spec *warrenv1.ClusterNetwork, path string) error {
	table, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a machine without IPv4 has no routes to clash with
	}
	if err != nil {
		return fmt.Errorf("look whether the cluster's ranges clash with this machine's routes: %w", err)
	}
	var broken []*validate.Violation
	for _, r := range readRoutes(string(table)) {
		for _, c := range []struct{ name, flag, text string }{
			{"node_range", "--node-range", spec.GetNodeRange()},
			{"vip_range", "--vip-range", spec.GetVipRange()},
		} {
			// What is refused as a whole takes nothing away from a part of it; as wide as the range itself is what Warren
			// lays on nodes.
			if p := netip.MustParsePrefix(c.text); p.Overlaps(r.to) && (!r.nowhere || r.to.Bits() > p.Bits()) {
				broken = append(broken, inNetwork(c.name, fmt.Sprintf("%s clashes with this machine's route to %s%s: give a range with %s that nothing else has",
					p, r.to, r.by, c.flag)))
			}
		}
	}
	if len(broken) > 0 {
		return invalid(broken...)
	}
	return nil
}

// route is one way of this machine's out.
type route struct {
	to      netip.Prefix
	by      string // in words, beginning with a blank
	nowhere bool   // it only says that there is no way
}

// How routes are told apart that only say that there is no way: by a flag or, of the silent kind (blackhole), by the
// link that they have not.
const (
	reject = 0x200
	noLink = "*"
)

// readRoutes reads the kernel's table of routes. Default routes are left out, as what is more particular
// goes before them, and the two halves of all there is, which VPNs lay in the place of one.
func readRoutes(table string) []route {
	var routes []route
	for line := range strings.Lines(table) {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		to, ok1 := kernelAddr(f[1])
		via, ok2 := kernelAddr(f[2])
		mask, ok3 := kernelAddr(f[7])
		flags, err := strconv.ParseUint(f[3], 16, 32)
		if !ok1 || !ok2 || !ok3 || err != nil {
			continue // the heading among them
		}
		length := bits.LeadingZeros32(^binary.BigEndian.Uint32(mask.AsSlice()))
		if length <= 1 {
			continue
		}
		r := route{to: netip.PrefixFrom(to, length), by: " on " + f[0], nowhere: flags&reject != 0 || f[0] == noLink}
		switch {
		case r.nowhere:
			r.by = ", which leads nowhere"
		case !via.IsUnspecified():
			r.by = " via " + via.String() + r.by
		}
		routes = append(routes, r)
	}
	return routes
}

// kernelAddr reads an address as the kernel writes it there: as a number in the order of bytes of the machine.
func kernelAddr(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 4 {
		return netip.Addr{}, false
	}
	var addr [4]byte
	binary.NativeEndian.PutUint32(addr[:], binary.BigEndian.Uint32(b))
	return netip.AddrFrom4(addr), true
}
