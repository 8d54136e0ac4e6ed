package overlay

import (
	"cmp"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/addressing"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Config is a node's own part of the network, nil while it has no subnet.
func Config(c *warrenv1.Cluster, n *warrenv1.Node) *warrenv1.NetworkConfig {
	if n.GetNetwork().GetSubnet() == "" {
		return nil
	}
	network := c.GetSpec().GetNetwork()
	return &warrenv1.NetworkConfig{
		Subnet:        n.GetNetwork().GetSubnet(),
		NodeRange:     cmp.Or(network.GetNodeRange(), addressing.DefaultNodeRange),
		VipRange:      cmp.Or(network.GetVipRange(), addressing.DefaultVIPRange),
		WireguardPort: cmp.Or(network.GetWireguardPort(), addressing.DefaultWireGuardPort),
		KeyGeneration: n.GetSpec().GetKeyGeneration(),
		KeyLife:       cmp.Or(network.GetKeyLife(), durationpb.New(addressing.DefaultKeyLife)),
	}
}
