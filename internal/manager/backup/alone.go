package backup

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/authority"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// maxObjectBytes is what a snapshot's object may have.
const maxObjectBytes = 16 << 20

// alone is what changes in a state when one manager is left.
type alone struct {
	self     string
	managers []string // that the cluster had
	now      time.Time
	spec     *warrenv1.ClusterSpec
}

// dismiss makes the certificates of the other managers worthless.
func (a alone) dismiss(kept *statev1.Authority) {
	kept.Removed = slices.DeleteFunc(kept.GetRemoved(), func(r *statev1.RemovedMember) bool {
		return r.GetName() == a.self || a.now.After(r.GetUntil().AsTime())
	})
	for _, id := range a.managers {
		if id != a.self && !authority.IsRemoved(kept, id) {
			kept.Removed = append(kept.Removed, &statev1.RemovedMember{Name: id, Until: timestamppb.New(authority.RemovedUntil(kept, a.spec, a.now))})
		}
	}
}

// rewrite copies a raft snapshot and makes the changes on the way. All members go: the manager that is left
// announces itself when it has its certificate. Every node that is not given up already is expected as
// after a restart of its agent, so that nothing is moved before agents had the time to find the manager.
func (a alone) rewrite(w io.Writer, from io.Reader) error {
	in := bufio.NewReaderSize(from, 1<<20)
	limits := protodelim.UnmarshalOptions{MaxSize: maxObjectBytes}
	var header statev1.SnapshotHeader
	if err := limits.UnmarshalFrom(in, &header); err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	objects := header.GetObjects()
	header.Objects -= uint64(len(a.managers))
	if _, err := protodelim.MarshalTo(w, &header); err != nil {
		return err
	}
	for range objects {
		var o statev1.Object
		if err := limits.UnmarshalFrom(in, &o); err != nil {
			return fmt.Errorf("read the state: %w", err)
		}
		switch o := o.GetKind().(type) {
		case *statev1.Object_Member:
			continue
		case *statev1.Object_Cluster: // which comes before the authority
			a.spec = o.Cluster.GetSpec()
		case *statev1.Object_Authority:
			a.dismiss(o.Authority)
		case *statev1.Object_Node:
			a.expect(o.Node)
		}
		if _, err := protodelim.MarshalTo(w, &o); err != nil {
			return err
		}
	}
	return nil
}

// expect gives a node's agent the time to come back that a restart of it has.
func (a alone) expect(n *warrenv1.Node) {
	if n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_DOWN {
		return
	}
	if n.GetStatus() == nil {
		n.Status = &warrenv1.NodeStatus{}
	}
	n.Status.State = warrenv1.NodeState_NODE_STATE_DISCONNECTED
	n.Status.Since = timestamppb.New(a.now)
	n.Status.Message = "the cluster was restored from a backup"
}
