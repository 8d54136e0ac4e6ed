package api

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestRangesThatCannotBeUsedAreRefusedWithARemedy(t *testing.T) {
	for _, c := range []struct {
		network *warrenv1.ClusterNetwork
		want    string // empty where it is in order
	}{
		{nil, ""},
		{&warrenv1.ClusterNetwork{NodeRange: "172.24.0.0/14", VipRange: "10.96.0.0/24"}, ""},
		{&warrenv1.ClusterNetwork{NodeRange: "10.1.2.0/25", NodePrefix: 29}, ""},
		{&warrenv1.ClusterNetwork{NodeRange: "10.208.0.0"}, `node_range: "10.208.0.0" is not a range of addresses: write ADDRESS/LENGTH`},
		{&warrenv1.ClusterNetwork{NodeRange: "fd00::/48"}, "node_range: fd00::/48 is not IPv4"},
		{&warrenv1.ClusterNetwork{NodeRange: "10.209.0.0/12"}, "goes on past the length of its prefix: write 10.208.0.0/12"},
		{&warrenv1.ClusterNetwork{NodeRange: "127.0.0.0/12"}, "127.0.0.0/8, loopback"},
		{&warrenv1.ClusterNetwork{NodeRange: "169.254.0.0/16"}, "link-local"},
		{&warrenv1.ClusterNetwork{VipRange: "224.1.0.0/16"}, "multicast, which mean something else: give another with --vip-range"},
		{&warrenv1.ClusterNetwork{NodeRange: "0.0.0.0/0"}, "overlaps 0.0.0.0/8"},
		{&warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/26"}, "too small: its prefix can be /25 at the longest; give a larger one with --node-range"},
		{&warrenv1.ClusterNetwork{VipRange: "10.96.0.0/25"}, "too small: its prefix can be /24 at the longest"},
		{&warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/8"}, "vip_range: 10.224.0.0/16 overlaps the nodes' range 10.0.0.0/8: give a range of its own with --vip-range, such as 172.28.0.0/16"},
		{&warrenv1.ClusterNetwork{VipRange: "10.208.0.0/16"}, "overlaps the nodes' range"},
		{&warrenv1.ClusterNetwork{NodePrefix: 15}, "node_prefix: is 15, but in the range 10.208.0.0/12 can be 16"},
		{&warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/25"}, "is 24, but in the range 10.0.0.0/25 can only be 29, which gives subnets to 16 nodes: give another"},
		{&warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/22"}, "node_prefix: is 24, but in the range 10.0.0.0/22 can be 26"},
	} {
		got := sentence(checkNetwork(resolveNetwork(c.network)))
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.network, got, c.want)
		}
	}
}

func TestAnUpdateKeepsTheRangesAndWhatItLeavesOut(t *testing.T) {
	was := &warrenv1.ClusterNetwork{NodeRange: "172.24.0.0/14", NodePrefix: 25, VipRange: "10.96.0.0/16", WireguardPort: 51820, KeyLife: durationpb.New(time.Hour + time.Nanosecond)}
	if got, broken := keepNetwork(was, nil); !proto.Equal(got, was) || broken != nil {
		t.Errorf("got %v and %v", got, broken)
	}
	got, broken := keepNetwork(was, &warrenv1.ClusterNetwork{NodeRange: "172.24.0.0/14", KeyLife: durationpb.New(2 * time.Hour)})
	if broken != nil || got.GetKeyLife().AsDuration() != 2*time.Hour || got.GetWireguardPort() != 51820 {
		t.Errorf("got %v and %v", got, broken)
	}
	if _, broken := keepNetwork(was, &warrenv1.ClusterNetwork{NodeRange: "10.0.0.0/12", NodePrefix: 24, VipRange: "10.96.0.0/17"}); len(broken) != 3 {
		t.Errorf("refused were %s", sentence(broken))
	}
	// A cluster that was made before there was an overlay has the defaults.
	if got, broken := keepNetwork(nil, &warrenv1.ClusterNetwork{NodeRange: defaultNodeRange}); !proto.Equal(got, resolveNetwork(nil)) || broken != nil {
		t.Errorf("got %v and %v", got, broken)
	}
}

// table is as Linux on a little-endian machine shows it.
const table = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000E00A	0101A8C0	0003	0	0	0	0000F0FF	0	0	0
*	0000D00A	00000000	0201	0	0	0	0000F0FF	0	0	0
*	0000000A	00000000	0001	0	0	0	000000FF	0	0	0
*	0003600A	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	00000000	0101A8C0	0003	0	0	0	00000080	0	0	0
tun0	00000080	0101A8C0	0003	0	0	0	00000080	0	0	0
nonsense
`

func TestRoutesAreReadButForTheDefault(t *testing.T) {
	var got []string
	for _, r := range readRoutes(table) {
		got = append(got, r.to.String()+r.by)
	}
	want := []string{
		"192.0.2.0/24 on eth0", "10.224.0.0/12 via 192.168.1.1 on tun0", "10.208.0.0/12, which leads nowhere",
		"10.0.0.0/8, which leads nowhere", "10.96.3.0/24, which leads nowhere",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for _, broken := range []string{"", "\n\n", "a b c d e f g h", "eth0 0 0 0 0 0 0 FF"} {
		if got := readRoutes(broken); len(got) > 0 {
			t.Errorf("%q is %v", broken, got)
		}
	}
}

func TestARangeThatTheMachineReachesSomethingElseByIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "route")
	if err := os.WriteFile(path, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	err := checkRoutes(resolveNetwork(nil), path)
	if err == nil || !strings.Contains(err.Error(), "spec.network.vip_range: 10.224.0.0/16 clashes with this machine's route to 10.224.0.0/12 via 192.168.1.1 on tun0: give a range with --vip-range that nothing else has") {
		t.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), "node_range") {
		t.Errorf("the nodes' range is clear: %v", err)
	}
	err = checkRoutes(resolveNetwork(&warrenv1.ClusterNetwork{VipRange: "10.96.0.0/16"}), path)
	if err == nil || !strings.Contains(err.Error(), "10.96.0.0/16 clashes with this machine's route to 10.96.3.0/24, which leads nowhere: give a range") {
		t.Errorf("a part that is refused: %v", err)
	}
	// Neither do refusals of all of it and more clash, nor a default route in two halves.
	if err := checkRoutes(resolveNetwork(&warrenv1.ClusterNetwork{VipRange: "10.97.0.0/16"}), path); err != nil {
		t.Errorf("a range that is free: %v", err)
	}
	if err := checkRoutes(resolveNetwork(nil), path+"-none"); err != nil {
		t.Errorf("without IPv4: %v", err)
	}
}
