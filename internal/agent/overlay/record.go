package overlay

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// The names under which things are recorded.
const (
	configRecord    = "config"
	peersRecord     = "peers"
	endpointsRecord = "endpoints"
	keyRecord       = "key"
)

// recall takes up what was recorded, so that the network is whole after a reboot also where no manager can be reached.
func (v *Overlay) recall() error {
	config, peers, endpoints := &warrenv1.NetworkConfig{}, &warrenv1.Peers{}, &warrenv1.Endpoints{}
	for name, message := range map[string]proto.Message{configRecord: config, peersRecord: peers, endpointsRecord: endpoints} {
		value, err := v.Record.Network(name)
		if err != nil {
			return fmt.Errorf("recall the network's %s: %w", name, err)
		}
		if err := proto.Unmarshal(value, message); err != nil {
			// Managers tell it again; until then it is as on a new node.
			v.Logger.Error("a record of the network cannot be read", "record", name, "error", err)
			proto.Reset(message)
		}
	}
	if config.GetSubnet() == "" {
		return nil
	}
	v.catalog.Own(subnet(config))
	endpoints.Full = true
	v.catalog.Heed(endpoints)
	v.config, v.due.config = config, true
	for _, p := range peers.GetPeers() {
		v.peers[p.GetNodeId()] = p
	}
	v.rouse()
	return nil
}

// recordLayout records the configuration and the peers.
func (v *Overlay) recordLayout() {
	v.mu.Lock()
	config, peers := v.config, &warrenv1.Peers{}
	for _, p := range v.peers {
		peers.Peers = append(peers.Peers, p)
	}
	v.mu.Unlock()
	v.put(configRecord, config)
	v.put(peersRecord, peers)
}

// recordEndpoints records what services are reached by.
func (v *Overlay) recordEndpoints() {
	if told := v.catalog.Told(); told.GetVersion() > 0 {
		v.put(endpointsRecord, told)
	}
}

func (v *Overlay) put(name string, message proto.Message) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err == nil {
		err = v.Record.RecordNetwork(name, value)
	}
	if err != nil {
		v.Logger.Error("the network could not be recorded: after a reboot it comes up only once a manager is reached", "record", name, "error", err)
	}
}
