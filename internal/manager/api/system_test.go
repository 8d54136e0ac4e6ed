package api_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const firstNode, secondNode, downNode = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "dddddddddddddddd"

// machines is a cluster of n1, which answers, n2, which is too old to, and n4, which is down.
func machines(t *testing.T, say func(*warrenv1.OpenStream) []*warrenv1.RelayRequest) (*realm, warrenv1connect.SystemServiceClient) {
	t.Helper()
	r := serveTLS(t, overlaid(firstNode, "n1", 1), overlaid(secondNode, "n2", 2),
		statetest.Node(downNode, func(n *warrenv1.Node) {
			n.Facts.Hostname = "n4"
			n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN
		}),
		statetest.Replicated("web", 1))
	r.answer(firstNode, "n1", say)
	r.answer(secondNode, "n2", func(*warrenv1.OpenStream) []*warrenv1.RelayRequest {
		return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Error{Error: "upgrade it"}}}
	})
	return r, warrenv1connect.NewSystemServiceClient(r.locally(nil), "http://manager")
}

func TestDisksAreToldByTheNodesThatAnswer(t *testing.T) {
	_, system := machines(t, func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest {
		if ask.GetDisk() == nil {
			t.Errorf("asked for %v", ask)
		}
		return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Disk{Disk: &warrenv1.NodeDisk{TotalBytes: 7}}}}
	})
	for _, c := range []struct {
		nodes []string
		want  []string
	}{
		{nil, []string{"n1 7 ", "n2 0 upgrade it", "n4 0 the node is down"}},
		{[]string{"n1", firstNode}, []string{"n1 7 "}},
	} {
		stream, err := system.GetDiskUsage(t.Context(), connect.NewRequest(&warrenv1.GetDiskUsageRequest{Nodes: c.nodes}))
		if err != nil || !stream.Receive() || int(stream.Msg().GetNodes()) != len(c.want) {
			t.Fatalf("began with %v, %v", stream, err)
		}
		var got []string
		for stream.Receive() {
			m := stream.Msg()
			got = append(got, fmt.Sprintf("%s %d %s", m.GetHostname(), m.GetDisk().GetTotalBytes(), m.GetError()))
		}
		slices.Sort(got)
		if err := stream.Err(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: told %q, %v", c.nodes, got, err)
		}
		_ = stream.Close()
	}
	stream, err := system.GetDiskUsage(t.Context(), connect.NewRequest(&warrenv1.GetDiskUsageRequest{Nodes: []string{"n9"}}))
	if err != nil || stream.Receive() {
		t.Fatalf("a node that is not there: %v, %v", stream, err)
	}
	refused(t, stream.Err(), connect.CodeNotFound, "n9")
	_ = stream.Close()
}

func TestANodeThatFailsHalfWayTellsWhatItHasRemoved(t *testing.T) {
	_, system := machines(t, func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest {
		if ask.GetPrune() == nil || ask.GetPrune().GetDryRun() {
			t.Errorf("asked for %v", ask)
		}
		return []*warrenv1.RelayRequest{
			{Data: &warrenv1.RelayRequest_Pruned{Pruned: &warrenv1.PrunedImages{FreedBytes: 5}}},
			{Data: &warrenv1.RelayRequest_Error{Error: "containerd is away"}},
		}
	})
	stream, err := system.PruneImages(t.Context(), connect.NewRequest(&warrenv1.PruneImagesRequest{Nodes: []string{"n1"}}))
	if err != nil || !stream.Receive() || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	if m := stream.Msg(); m.GetPruned().GetFreedBytes() != 5 || m.GetError() != "containerd is away" {
		t.Errorf("told %v", m)
	}
	_ = stream.Close()
}

func TestUsageIsToldUntilNobodyListens(t *testing.T) {
	r, system := machines(t, func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest {
		if ask.GetUsage().GetInterval().AsDuration() != 300*time.Millisecond {
			t.Errorf("asked for %v", ask)
		}
		return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Usage{Usage: &warrenv1.NodeUsage{NanoCpus: 5}}}}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := system.WatchUsage(ctx, connect.NewRequest(&warrenv1.WatchUsageRequest{Interval: durationpb.New(300 * time.Millisecond)}))
	if err != nil || !stream.Receive() || stream.Msg().GetNodes() != 3 {
		t.Fatal(err, stream.Err(), stream.Msg())
	}
	told := map[string]bool{}
	hear := func(until string) {
		t.Helper()
		for !told[until] {
			if !stream.Receive() {
				t.Fatalf("%v, and not %q: %v", told, until, stream.Err())
			}
			m := stream.Msg()
			told[fmt.Sprintf("%s %d %s %v", m.GetHostname(), m.GetUsage().GetNanoCpus(), m.GetError(), m.GetGone())] = true
		}
	}
	hear("n1 5  false")
	hear("n2 0 upgrade it false")
	hear("n4 0 the node is down false")
	// An agent that comes back is asked again, and a node that comes is asked too.
	hear("n1 0 its agent has stopped telling false")
	statetest.Put(t, r.store, statetest.Node("eeeeeeeeeeeeeeee", func(n *warrenv1.Node) {
		n.Facts.Hostname = "n5"
		n.Status.State = warrenv1.NodeState_NODE_STATE_UNKNOWN
	}))
	hear("n5 0 the node is unknown false")
	cancel()
	_ = stream.Close()
}

func TestOnlyNodesWithTasksOfTheServiceAreAskedWhatItUses(t *testing.T) {
	_, system := machines(t, func(*warrenv1.OpenStream) []*warrenv1.RelayRequest { return nil })
	for ref, want := range map[string]string{"web": "", "nothing": "nothing"} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := system.WatchUsage(ctx, connect.NewRequest(&warrenv1.WatchUsageRequest{Service: ref}))
		if err != nil {
			t.Fatal(err)
		}
		if got := stream.Receive(); got != (want == "") || got && stream.Msg().GetNodes() != 0 {
			t.Errorf("%s: began with %v", ref, stream.Msg())
		}
		if want != "" && !strings.Contains(stream.Err().Error(), want) {
			t.Errorf("%s: %v", ref, stream.Err())
		}
		cancel()
		_ = stream.Close()
	}
}
