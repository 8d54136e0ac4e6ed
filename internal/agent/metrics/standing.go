package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cuemby/warren/internal/agent/overlay"
)

// askTimeout bounds how long a scrape waits for WireGuard.
const askTimeout = 2 * time.Second

// standing collects how the node itself stands.
type standing struct{ Sources }

var (
	connected = desc("warren_agent_connected", "Whether the agent has a session with a manager: 1 or 0.")
	expires   = desc("warren_agent_certificate_expiry_timestamp_seconds", "Until when the node's certificate is good.")
	overlayUp = desc("warren_agent_overlay_up", "Whether the node's part of the overlay network is up: 1 or 0.")
	peers     = desc("warren_agent_overlay_peers", "Other nodes, by when WireGuard last shook hands with them: in the last three minutes (recent), longer ago (old), never.", "handshake")
	received  = desc("warren_agent_overlay_received_bytes_total", "Bytes that came from other nodes by the overlay's WireGuard link, since it was made.")
	sent      = desc("warren_agent_overlay_sent_bytes_total", "Bytes that went to other nodes by the overlay's WireGuard link, since it was made.")
	dropped   = desc("warren_agent_overlay_dropped_packets_total", "Packets that the overlay's WireGuard link dropped, since it was made.", "direction")
	vips      = desc("warren_agent_virtual_addresses", "Virtual addresses that this node balances.")
	targets   = desc("warren_agent_balanced_tasks", "Tasks of the whole cluster that this node may send new connections to.")
	taken     = desc("warren_agent_taken_ports", "Published ports that another program on this node has, so that they lead to it.")
)

// Describe implements prometheus.Collector.
func (*standing) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connected, expires, overlayUp, peers, received, sent, dropped, vips, targets, taken} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *standing) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(connected, truth(s.Connected()))
	if t := s.CertificateExpires(); !t.IsZero() {
		gauge(expires, float64(t.Unix()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	figures, err := s.Overlay(ctx)
	if err != nil {
		to <- prometheus.NewInvalidMetric(peers, err)
	} else {
		for handshake, n := range figures.Peers {
			gauge(peers, float64(n), string(handshake))
		}
	}
	gauge(overlayUp, truth(figures.Up))
	gauge(vips, float64(figures.VIPs))
	gauge(targets, float64(figures.Tasks))
	gauge(taken, float64(figures.TakenPorts))

	links, err := s.Links()
	if err != nil {
		to <- prometheus.NewInvalidMetric(received, err)
		return
	}
	if link, there := links[overlay.Device]; there {
		count(to, received, link.Received)
		count(to, sent, link.Sent)
		count(to, dropped, link.ReceivedDropped, "received")
		count(to, dropped, link.SentDropped, "sent")
	}
}

func count(to chan<- prometheus.Metric, d *prometheus.Desc, value uint64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
