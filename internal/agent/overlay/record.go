package overlay

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// The names under which things are recorded. What services are reached by is recorded one by one, under the id of each
// service and task after its prefix, and costs as much to keep up as changes of it; the version of it all is apart.
const (
	configRecord    = "config"
	peersRecord     = "peers"
	endpointsRecord = "endpoints"
	serviceRecords  = "service/"
	taskRecords     = "task/"
	keyRecord       = "key"
)

// recordRetry is how long is waited before what could not be recorded is recorded again, if no news come before.
const recordRetry = 5 * time.Second

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
	if err := v.recallEndpoints(endpoints); err != nil {
		return err
	}
	if config.GetSubnet() == "" {
		return nil
	}
	v.catalog.Own(subnet(config))
	endpoints.Full = true
	v.catalog.Heed(endpoints)
	v.catalog.Unrecorded() // that is where it comes from
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

// recallEndpoints adds what was recorded one by one.
func (v *Overlay) recallEndpoints(e *warrenv1.Endpoints) error {
	services, err := v.Record.NetworkUnder(serviceRecords)
	if err != nil {
		return fmt.Errorf("recall the network's services: %w", err)
	}
	tasks, err := v.Record.NetworkUnder(taskRecords)
	if err != nil {
		return fmt.Errorf("recall the network's tasks: %w", err)
	}
	for id, value := range services {
		front := &warrenv1.ServiceFront{}
		if err := proto.Unmarshal(value, front); err != nil {
			v.Logger.Error("a record of the network cannot be read", "record", serviceRecords+id, "error", err)
			continue
		}
		e.Services = append(e.Services, front)
	}
	for id, value := range tasks {
		task := &warrenv1.TaskEndpoint{}
		if err := proto.Unmarshal(value, task); err != nil {
			v.Logger.Error("a record of the network cannot be read", "record", taskRecords+id, "error", err)
			continue
		}
		e.Tasks = append(e.Tasks, task)
	}
	return nil
}

// recordEndpoints records what services are reached by. An agent that is killed leaves its rules behind, and other nodes
// count on what it has acknowledged: the next must not put in force what is older.
func (v *Overlay) recordEndpoints() error {
	v.recording.Lock()
	defer v.recording.Unlock()
	news, some := v.catalog.Unrecorded()
	if !some {
		return nil
	}
	values := map[string][]byte{}
	err := set(values, endpointsRecord, &warrenv1.Endpoints{Version: news.GetVersion()})
	for _, front := range news.GetServices() {
		err = errors.Join(err, set(values, serviceRecords+front.GetServiceId(), front))
	}
	for _, task := range news.GetTasks() {
		err = errors.Join(err, set(values, taskRecords+task.GetTaskId(), task))
	}
	for _, id := range news.GetRemovedServices() {
		values[serviceRecords+id] = nil
	}
	for _, id := range news.GetRemovedTasks() {
		values[taskRecords+id] = nil
	}
	if err == nil {
		err = v.Record.RecordNetworkAll(values)
	}
	if err != nil {
		v.catalog.NotRecorded(news)
		return fmt.Errorf("record what services are reached by: %w", err)
	}
	return nil
}

func set(values map[string][]byte, name string, message proto.Message) (err error) {
	values[name], err = proto.MarshalOptions{Deterministic: true}.Marshal(message)
	return err
}

// forget forgets all that is recorded.
func (v *Overlay) forget() error {
	v.recording.Lock()
	defer v.recording.Unlock()
	values := map[string][]byte{configRecord: nil, peersRecord: nil, endpointsRecord: nil, keyRecord: nil}
	for _, prefix := range []string{serviceRecords, taskRecords} {
		under, err := v.Record.NetworkUnder(prefix)
		if err != nil {
			return err
		}
		for id := range under {
			values[prefix+id] = nil
		}
	}
	return v.Record.RecordNetworkAll(values)
}

func (v *Overlay) put(name string, message proto.Message) {
	values := map[string][]byte{}
	err := set(values, name, message)
	if err == nil {
		err = v.Record.RecordNetworkAll(values)
	}
	if err != nil {
		v.Logger.Error("the network could not be recorded: after a reboot it comes up only once a manager is reached", "record", name, "error", err)
	}
}
