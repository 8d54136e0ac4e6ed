package scheduler

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// reasonLasts is how long a reason stands before it is looked at again, should anything have changed:
// on a busy cluster its figures change with every placement.
const reasonLasts = time.Second

// verdictsPerDecision bounds the work of looking at reasons again in one decision.
const verdictsPerDecision = 1 << 20

// maxQuoteBytes bounds what a reason quotes of a node: every task that waits bears it.
const maxQuoteBytes = 200

// explain works out why the blocked groups fit nowhere, and which tasks are to be told, at most so many
// that the decision has limit writes in all. It returns when to look again, zero for not before
// something changes.
func (v *view) explain(now time.Time, limit int) (wake time.Time) {
	verdicts := 0
	for _, g := range v.blocked {
		if len(g.pending) == 0 {
			continue
		}
		if g.reason.of != v.changes || g.reason.text == "" {
			due := g.reason.at.Add(reasonLasts)
			switch {
			case g.reason.text != "" && now.Before(due):
				wake = earlier(wake, due)
			case verdicts > verdictsPerDecision:
				wake = earlier(wake, now)
			default:
				verdicts += len(v.nodes)
				text := v.why(g)
				g.reason = reason{text: text, of: v.changes, at: now, untold: g.reason.untold || text != g.reason.text}
			}
		}
		if g.reason.untold && !v.tell(g, limit) {
			wake = earlier(wake, now)
		}
	}
	return wake
}

// tell has the reason written to those of g's tasks that do not bear it. It tells whether there was room
// for all.
func (v *view) tell(g *group, limit int) bool {
	for _, id := range g.queue {
		t := g.pending[id]
		if t == nil || t.GetStatus().GetMessage() == g.reason.text {
			continue
		}
		if len(v.placed)+len(v.told) >= limit {
			return false
		}
		v.told = append(v.told, remark{t, g.reason.text})
	}
	g.reason.untold = false
	return true
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// why says in words why g's tasks fit on no node, counting whom each filter turned away.
func (v *view) why(g *group) string {
	if text := g.hopeless(); text != "" {
		return text
	}
	var counts []int
	var firsts []*node
	nodes := 0
	for _, n := range v.inOrder().nodes {
		nodes++
		why := int(g.judge(n))
		if more := why + 1 - len(counts); more > 0 {
			counts, firsts = append(counts, make([]int, more)...), append(firsts, make([]*node, more)...)
		}
		if counts[why]++; counts[why] == 1 {
			firsts[why] = n
		}
	}
	if nodes == 0 {
		return "no node fits: the cluster has no nodes"
	}
	var parts []string
	for why, n := range counts {
		if n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+g.words(verdict(why), n, firsts[why]))
		}
	}
	return fmt.Sprintf("no node fits: %s: %s", plural(nodes, "node"), strings.Join(parts, ", "))
}

// whyNot says in words why n, the only node where a task may go, does not fit.
func (g *group) whyNot(n *node, why verdict) string {
	if text := g.hopeless(); text != "" {
		return text
	}
	return fmt.Sprintf("node %s %s", n.name(), g.words(why, 1, n))
}

// name is what people call the node.
func (n *node) name() string { return cmp.Or(n.object.GetFacts().GetHostname(), n.id) }

// hopeless says why g's tasks fit no node whatever it be, empty where that is not so.
func (g *group) hopeless() string {
	switch {
	case g.service.object == nil:
		return "the service is gone"
	case g.service.object.GetRemoving():
		return "the service is being removed"
	case g.service.broken != nil:
		return g.service.broken.Error()
	case !g.template:
		return fmt.Sprintf("revision %d of the service is gone", g.revision)
	}
	return ""
}

// words says what a verdict means for that many nodes, of which one is given as an example.
func (g *group) words(why verdict, nodes int, example *node) string {
	is, has, lacks, does, runs := "is", "has", "lacks", "does", "runs"
	if nodes != 1 {
		is, has, lacks, does, runs = "are", "have", "lack", "do", "run"
	}
	switch why {
	case fits:
		return runs + " none of it yet" // and is tried next
	case missing:
		return is + " not in the cluster"
	case notReady:
		return is + " not ready"
	case paused:
		return is + " paused"
	case drained:
		return is + " drained"
	case wrongPlatform:
		return is + " not of " + strings.Join(g.service.object.GetSpec().GetPlacement().GetPlatforms(), " or ")
	case lacksSubnet:
		return lacks + " a subnet of the overlay" + because(example.object.GetNetwork().GetProblem(), nodes, example)
	case lacksOverlay:
		return has + " an overlay network that has failed" + because(example.object.GetStatus().GetOverlay().GetError(), nodes, example)
	case lacksCPUs:
		return lacks + " " + cpus(g.need.cpus)
	case lacksMemory:
		return lacks + " " + bytes(g.need.memory) + " memory"
	case full:
		return fmt.Sprintf("already %s %s, the most per node", runs, plural(int(g.service.object.GetSpec().GetPlacement().GetMaxReplicasPerNode()), "task"))
	}
	constraints := g.service.rules.Constraints()
	if i := int(why - violates); i < len(constraints) {
		return fmt.Sprintf("%s not meet %s", does, constraints[i])
	}
	return fmt.Sprintf("%s port %s taken by another task", has, g.ports[why-g.taken(0)])
}

// because puts what a node says of itself in brackets. Others may have reasons of their own, so that it is
// told whose this one is.
func because(text string, nodes int, whose *node) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if len(text) > maxQuoteBytes {
		text = strings.ToValidUTF8(text[:maxQuoteBytes], "") + "…"
	}
	switch {
	case text == "":
		return ""
	case nodes > 1:
		text = whose.name() + ": " + text
	}
	return " (" + text + ")"
}

// String writes a port as users do.
func (p port) String() string {
	if p.udp {
		return strconv.Itoa(int(p.number)) + "/udp"
	}
	return strconv.Itoa(int(p.number)) + "/tcp"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// cpus writes billionths of a processor as users do.
func cpus(nano int64) string {
	s := strconv.FormatFloat(float64(nano)/1e9, 'f', -1, 64)
	if s == "1" {
		return "1 cpu"
	}
	return s + " cpus"
}

// bytes writes an amount in the largest unit in which it is at least one, with up to two decimals.
func bytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	amount, unit := float64(n), 0
	for amount >= 1024 && unit < len(units)-1 {
		amount /= 1024
		unit++
	}
	s := strconv.FormatFloat(amount, 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + " " + units[unit]
}
