package rules

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic/traffictest"
)

// what lists all rules of a host, but for what changes by itself.
func (w *world) what(h *host) string {
	text := h.run("nft", "list", "ruleset") + h.run(w.variant.program+"-save")
	return regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]|packets \d+ bytes \d+`).ReplaceAllString(text, "")
}

func TestRemoveLeavesNothing(t *testing.T) {
	tables := []string{"filter", "nat", "raw"}
	for name, prepare := range map[string]func(w *world){
		"on a host without rules": func(w *world) {
			if w.variant.program == "iptables-legacy" {
				for _, table := range tables { // once looked into, its tables stand for good
					w.node.run(w.variant.program, "-t", table, "-S")
				}
			}
		},
		"on a host with rules": func(w *world) {
			for _, table := range tables {
				w.node.run(w.variant.program, "-t", table, "-N", "DOCKER")
				w.node.run(w.variant.program, "-t", table, "-A", "OUTPUT", "-d", "203.0.113.9", "-j", "DOCKER")
			}
			w.node.run(w.variant.program, "-P", "FORWARD", "DROP")
			w.node.run("nft", "add", "table", "ip", "theirs")
		},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, w *world) {
				prepare(w)
				before := w.what(w.node)
				s := service("one", vip1, aAddr, dAddr)
				s.Published = published(8080, 80, traffic.TCP)
				w.replace(s)
				w.node.run(w.variant.program, "-A", "WARREN-USER", "-s", "203.0.113.9", "-j", "DROP")
				w.apply(traffic.Change{Services: []traffic.Service{service("two", vip2, bAddr)}})
				next := w.open(w.node, w.nodeIs) // it is not the process that made it which removes it
				w.node.must(next.Replace(t.Context(), traffic.Set{Tasks: everyTask(w.nodeIs)}))
				if w.what(w.node) == before {
					t.Error("there are no rules")
				}
				last := w.open(w.node, w.nodeIs)
				w.node.must(last.Remove(t.Context()))
				if after := w.what(w.node); after != before {
					t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
				}
			})
		})
	}
}

func TestTheOperatorsChainIsKept(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		w.outside.serve(80)
		w.replace()
		w.node.run(w.variant.program, "-A", "WARREN-USER", "-s", aAddr, "-d", far, "-j", "REJECT")
		kept := func(after string) {
			t.Helper()
			w.a.refused("tcp4", far+":80")
			if text := w.node.run(w.variant.program, "-S", "WARREN-USER"); strings.Count(text, "-A ") != 1 {
				t.Errorf("after %s:\n%s", after, text)
			}
		}
		kept("nothing")
		w.replace(service("one", vip1, aAddr))
		kept("everything was replaced")
		w.node.must(w.open(w.node, w.nodeIs).Replace(t.Context(), traffic.Set{Tasks: everyTask(w.nodeIs)}))
		kept("another process replaced everything")
		w.node.run(w.variant.program, "-D", "FORWARD", "1")
		if missing, err := w.rules.Repair(t.Context()); err != nil || !missing {
			t.Errorf("repair: %t, %v", missing, err)
		}
		kept("a repair")
	})
}

func TestTheOtherBackendsRulesAreClearedAway(t *testing.T) {
	needsRoot(t)
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, variant{"", IPTables, program})
			s := service("one", vip1, bAddr)
			w.replace(s)
			rules := w.what(w.node)
			w.variant.backend = Nftables
			next := w.open(w.node, w.nodeIs)
			w.node.must(next.Replace(t.Context(), traffic.Set{Services: []traffic.Service{s}, Tasks: everyTask(w.nodeIs)}))
			if text := w.node.run(program + "-save"); strings.Contains(text, "WARREN-VIPS") || strings.Contains(text, "WARREN-REFUSE") {
				t.Errorf("left of iptables:\n%s", text)
			}
			w.a.reaches("tcp4", vip1+":80", aAddr, "b")
			w.variant.backend = IPTables
			back := w.open(w.node, w.nodeIs)
			w.node.must(back.Replace(t.Context(), traffic.Set{Services: []traffic.Service{s}, Tasks: everyTask(w.nodeIs)}))
			if now := w.what(w.node); !sameLines(now, rules) {
				t.Errorf("left of nftables:\n%s\nwant\n%s", now, rules)
			}
			w.a.reaches("tcp4", vip1+":80", aAddr, "b")
		})
	}
}

func TestAHostWithoutIptablesNeedsNone(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	w := newWorld(t, variant{"", Auto, "no-such-iptables"})
	if w.rules.Backend() != Nftables {
		t.Errorf("chose %s", w.rules.Backend())
	}
	w.replace(service("one", vip1, bAddr))
	w.a.reaches("tcp4", vip1+":80", aAddr, "b")
	if missing, err := w.rules.Repair(t.Context()); err != nil || missing {
		t.Errorf("repair: %t, %v", missing, err)
	}
	w.node.must(w.rules.Remove(t.Context()))
	if left := w.node.run("nft", "list", "ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	err := w.node.do(func() error {
		_, err := Open(t.Context(), w.nodeIs, Options{Backend: IPTables, Program: "no-such-iptables"})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "install the package iptables") {
		t.Errorf("iptables where there are none: %v", err)
	}
}

func TestANodeThatCannotBeIsRefused(t *testing.T) {
	node := traffictest.Node(3)
	node.VIPRange = netip.MustParsePrefix("10.208.9.0/24")
	if _, err := Open(t.Context(), node, Options{}); err == nil || !strings.Contains(err.Error(), "apart from the node range") {
		t.Errorf("overlapping ranges: %v", err)
	}
}
