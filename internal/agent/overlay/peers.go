package overlay

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	probing "github.com/prometheus-community/pro-bing"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// How other nodes are pinged.
const (
	pingInterval = 100 * time.Millisecond
	pingPatience = time.Second // for the last answer
	maxPingers   = 32          // nodes pinged at once
	maxPings     = 100         // of one node
)

// greetingAlarm goes off when a new peer should have answered.
func (v *Overlay) greetingAlarm() *alarm {
	a := newAlarm()
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up == nil {
		return a
	}
	if at, some := up.device.Unanswered(); some {
		a.set(max(0, time.Until(at)))
	}
	return a
}

func (v *Overlay) greetAgain(ctx context.Context) {
	v.mu.Lock()
	up := v.net
	v.mu.Unlock()
	if up == nil {
		return
	}
	if err := up.device.GreetAgain(ctx); err != nil && ctx.Err() == nil {
		v.Logger.Warn("new peers that do not answer could not be greeted again", "error", err)
		v.mu.Lock()
		v.due.peers = true // the device may not be what it should be
		v.mu.Unlock()
		v.rouse()
	}
}

// Peers tells how this node stands with each other one, by hostname.
func (v *Overlay) Peers(ctx context.Context) ([]*warrenv1.OverlayPeer, error) {
	v.mu.Lock()
	up := v.net
	peers := map[string]*warrenv1.Peer{} // by key
	for _, p := range v.peers {
		peers[p.GetPublicKey()] = p
	}
	v.mu.Unlock()
	if up == nil {
		return nil, ErrDown
	}
	statuses, err := up.device.Peers(ctx)
	if err != nil {
		return nil, err
	}
	var told []*warrenv1.OverlayPeer
	for _, s := range statuses {
		p := peers[s.PublicKey.String()]
		t := &warrenv1.OverlayPeer{
			NodeId: p.GetNodeId(), Hostname: p.GetHostname(), PublicKey: s.PublicKey.String(), Subnet: p.GetSubnet(),
			ReceivedBytes: s.ReceivedBytes, SentBytes: s.SentBytes,
		}
		if s.Endpoint.IsValid() {
			t.Endpoint = s.Endpoint.String()
		}
		if !s.LastHandshake.IsZero() {
			t.LastHandshake = timestamppb.New(s.LastHandshake)
		}
		told = append(told, t)
	}
	slices.SortFunc(told, func(a, b *warrenv1.OverlayPeer) int { return strings.Compare(a.GetHostname(), b.GetHostname()) })
	return told, nil
}

// rise is how long pings wait for a network that is coming up, as a node's does that has just joined.
const rise = 3 * time.Second

// Ping pings other nodes by their addresses on the overlay, so many times each.
func (v *Overlay) Ping(ctx context.Context, addresses []string, count uint32) ([]*warrenv1.Ping, error) {
	rising, cancel := context.WithTimeout(ctx, rise)
	defer cancel()
	up, err := v.await(rising, func(string) {})
	switch {
	case err != nil && rising.Err() != nil && ctx.Err() == nil:
		return nil, ErrDown
	case err != nil:
		return nil, err
	}
	pings := make([]*warrenv1.Ping, len(addresses))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxPingers)
	for i, address := range addresses {
		group.Go(func() error {
			pings[i] = up.ping(ctx, address, min(max(1, count), maxPings))
			return nil
		})
	}
	_ = group.Wait()
	return pings, nil
}

func (n *network) ping(ctx context.Context, address string, count uint32) *warrenv1.Ping {
	result := &warrenv1.Ping{Address: address}
	addr, err := netip.ParseAddr(address)
	if err != nil || !n.layout.NodeRange.Contains(addr) {
		result.Error = fmt.Sprintf("%q is no address of the overlay", address)
		return result
	}
	pinger := probing.New(address)
	pinger.SetPrivileged(true)
	pinger.Source = n.layout.Addr.String()
	pinger.Count, pinger.Interval = int(count), pingInterval
	pinger.Timeout = time.Duration(count)*pingInterval + pingPatience
	if err := pinger.RunWithContext(ctx); err != nil {
		result.Error = err.Error()
	}
	s := pinger.Statistics()
	result.Sent, result.Received = uint32(s.PacketsSent), uint32(min(s.PacketsRecv, s.PacketsSent))
	if s.PacketsRecv > 0 {
		result.Min, result.Average, result.Max = durationpb.New(s.MinRtt), durationpb.New(s.AvgRtt), durationpb.New(s.MaxRtt)
	}
	return result
}
