package session

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeNetwork takes down what it is told.
type fakeNetwork struct {
	changed, applied chan struct{}
	heard            chan proto.Message

	mu        sync.Mutex
	status    *warrenv1.OverlayStatus
	inForce   uint64
	attending bool
}

func newFakeNetwork() *fakeNetwork {
	return &fakeNetwork{changed: make(chan struct{}, 1), applied: make(chan struct{}, 1), heard: make(chan proto.Message, 16)}
}

func (n *fakeNetwork) Configure(c *warrenv1.NetworkConfig) { n.heard <- c }
func (n *fakeNetwork) HeedPeers(p *warrenv1.Peers)         { n.heard <- p }
func (n *fakeNetwork) HeedEndpoints(e *warrenv1.Endpoints) { n.heard <- e }
func (n *fakeNetwork) Changed() <-chan struct{}            { return n.changed }
func (n *fakeNetwork) Applied() <-chan struct{}            { return n.applied }
func (n *fakeNetwork) Peers(context.Context) ([]*warrenv1.OverlayPeer, error) {
	return []*warrenv1.OverlayPeer{{Hostname: "other"}}, nil
}

func (n *fakeNetwork) Ping(_ context.Context, addresses []string, count uint32) ([]*warrenv1.Ping, error) {
	var pings []*warrenv1.Ping
	for _, a := range addresses {
		pings = append(pings, &warrenv1.Ping{Address: a, Sent: count})
	}
	return pings, nil
}

func (n *fakeNetwork) Attend(open bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attending = open
}

func (n *fakeNetwork) Status() *warrenv1.OverlayStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

func (n *fakeNetwork) InForce() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.inForce
}

// become changes how the network stands. A token that lies there yet will do.
func (n *fakeNetwork) become(status *warrenv1.OverlayStatus, inForce uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if status != nil {
		n.status = status
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
	if inForce > 0 {
		n.inForce = inForce
		select {
		case n.applied <- struct{}{}:
		default:
		}
	}
}

func TestWhatIsToldOfTheNetworkReachesItAndBack(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{})
	a.network.become(&warrenv1.OverlayStatus{PublicKey: "first"}, 7)
	attend(t, a, m.addr)
	s := next(t, m.sessions, "the session")
	told := next(t, s.heard, "how the overlay stands").GetOverlay()
	inForce := next(t, s.heard, "what is in force").GetInForce()
	if told.GetPublicKey() != "first" || inForce.GetVersion() != 7 {
		t.Fatalf("heard %v and %v first", told, inForce)
	}
	for _, sent := range []*warrenv1.AttendResponse{
		{Message: &warrenv1.AttendResponse_Network{Network: &warrenv1.NetworkConfig{Subnet: "10.208.0.0/24"}}},
		{Message: &warrenv1.AttendResponse_Peers{Peers: &warrenv1.Peers{Full: true}}},
		{Message: &warrenv1.AttendResponse_Endpoints{Endpoints: &warrenv1.Endpoints{Version: 8}}},
	} {
		if err := s.send(sent); err != nil {
			t.Fatal(err)
		}
	}
	if c, ok := next(t, a.network.heard, "the configuration").(*warrenv1.NetworkConfig); !ok || c.GetSubnet() != "10.208.0.0/24" {
		t.Errorf("heard %v", c)
	}
	if p, ok := next(t, a.network.heard, "the peers").(*warrenv1.Peers); !ok || !p.GetFull() {
		t.Errorf("heard %v", p)
	}
	if e, ok := next(t, a.network.heard, "the endpoints").(*warrenv1.Endpoints); !ok || e.GetVersion() != 8 {
		t.Errorf("heard %v", e)
	}
	drain(s) // what was told on account of the tokens that lay there from before
	a.network.become(nil, 8)
	for {
		if got := next(t, s.heard, "what is in force now").GetInForce().GetVersion(); got == 8 {
			break
		}
	}
}

func drain(s *managerSession) {
	for {
		select {
		case <-s.heard:
		default:
			return
		}
	}
}
