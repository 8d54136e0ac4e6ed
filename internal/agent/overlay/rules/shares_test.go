package rules

import (
	"net/netip"
	"testing"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

func TestEndpointsGetEvenShares(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, w *world) {
		s := service("one", vip1, aAddr, bAddr, dAddr)
		s.Published = published(8080, 80, traffic.TCP)
		w.replace(s)
		for _, to := range []string{vip1 + ":80", near + ":8080"} {
			const n = 240
			got := w.node.tally("tcp4", to, n)
			for _, who := range []string{"a", "b", "d"} {
				if got[who] < n/3-45 || got[who] > n/3+45 { // six standard deviations
					t.Errorf("%s: %v of %d, want a third each", to, got, n)
				}
			}
		}
	})
}

// Of 2,000 connections 200 go to a canary of 10 percent, give or take six standard deviations of 13, and within each share the
// endpoints get as many as each other.
func TestEndpointsGetTheirShares(t *testing.T) {
	onEveryBackend(t, func(t *testing.T, w *world) {
		s := traffic.Service{
			ID: "one", VIP: netip.MustParseAddr(vip1), Published: published(8080, 80, traffic.TCP),
			Shares: []traffic.Share{{Weight: 90, Endpoints: addrs(aAddr, bAddr)}, {Weight: 10, Endpoints: addrs(dAddr)}},
		}
		w.replace(s)
		for _, to := range []string{vip1 + ":80", near + ":8080"} {
			const n = 2000
			got := w.node.tally("tcp4", to, n)
			for who, bounds := range map[string][2]int{"a": {900 - 134, 900 + 134}, "b": {900 - 134, 900 + 134}, "d": {200 - 80, 200 + 80}} {
				if got[who] < bounds[0] || got[who] > bounds[1] {
					t.Errorf("%s: %v of %d, want %s from %d to %d", to, got, n, who, bounds[0], bounds[1])
				}
			}
		}
		// The switch of a blue-green rollout is one change.
		s.Shares = []traffic.Share{{Weight: 100, Endpoints: addrs(dAddr)}, {Weight: 0, Endpoints: addrs(aAddr, bAddr)}}
		w.apply(traffic.Change{Services: []traffic.Service{s}})
		if got := w.node.tally("tcp4", vip1+":80", 50); got["d"] != 50 {
			t.Errorf("%v after all were to go to d", got)
		}
		s.Shares, s.Endpoints = nil, addrs(aAddr)
		w.apply(traffic.Change{Services: []traffic.Service{s}})
		if got := w.node.tally("tcp4", vip1+":80", 20); got["a"] != 20 {
			t.Errorf("%v after all were to go to a", got)
		}
	})
}
