package scheduler

import (
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
	nodes := 0
	for _, n := range v.inOrder().nodes {
		nodes++
		why := int(g.judge(n))
		if why >= len(counts) {
			counts = append(counts, make([]int, why+1-len(counts))...)
		}
		counts[why]++
	}
	if nodes == 0 {
		return "no node fits: the cluster has no nodes"
	}
	var parts []string
	for why, n := range counts {
		if n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+g.words(verdict(why), n))
		}
	}
	return fmt.Sprintf("no node fits: %s: %s", plural(nodes, "node"), strings.Join(parts, ", "))
}

// whyNot says in words why n, the only node where a task may go, does not fit.
func (g *group) whyNot(n *node, why verdict) string {
	if text := g.hopeless(); text != "" {
		return text
	}
	name := n.object.GetFacts().GetHostname()
	if name == "" {
		name = n.id
	}
	return fmt.Sprintf("node %s %s", name, g.words(why, 1))
}

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

// words says what a verdict means for that many nodes.
func (g *group) words(why verdict, nodes int) string {
	is, lacks, does, runs := "is", "lacks", "does", "runs"
	if nodes != 1 {
		is, lacks, does, runs = "are", "lack", "do", "run"
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
	case lacksCPUs:
		return lacks + " " + cpus(g.need.cpus)
	case lacksMemory:
		return lacks + " " + bytes(g.need.memory) + " memory"
	case full:
		return fmt.Sprintf("already %s %s, the most per node", runs, plural(int(g.service.object.GetSpec().GetPlacement().GetMaxReplicasPerNode()), "task"))
	}
	return fmt.Sprintf("%s not meet %s", does, g.service.rules.Constraints()[why-violates])
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
