package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Check is what came of `network check`: a row for each node that pinged.
type Check []*warrenv1.CheckNetworkResponse

// widestMatrix is how many nodes a matrix shows; of more, the pairs with a hole or loss are listed.
const widestMatrix = 16

// NewCheck puts rows, and the pings in them, in the order of the nodes' names.
func NewCheck(rows []*warrenv1.CheckNetworkResponse) Check {
	c := Check(slices.Clone(rows))
	slices.SortFunc(c, func(a, b *warrenv1.CheckNetworkResponse) int {
		return cmp.Or(strings.Compare(a.GetHostname(), b.GetHostname()), strings.Compare(a.GetNodeId(), b.GetNodeId()))
	})
	for _, row := range c {
		slices.SortFunc(row.GetPings(), func(a, b *warrenv1.Ping) int {
			return cmp.Or(strings.Compare(a.GetHostname(), b.GetHostname()), strings.Compare(a.GetNodeId(), b.GetNodeId()))
		})
	}
	return c
}

// lost tells that nothing comes through from one node to another, or that it could not be found out.
func lost(p *warrenv1.Ping) bool {
	return p.GetError() != "" || p.GetReceived() == 0
}

func percentLost(p *warrenv1.Ping) int {
	if p.GetSent() == 0 {
		return 100
	}
	return 100 - int(100*min(p.GetReceived(), p.GetSent())/p.GetSent())
}

// why says in words what is wrong between two nodes.
func why(row *warrenv1.CheckNetworkResponse, p *warrenv1.Ping) string {
	if !lost(p) {
		return ""
	}
	return cmp.Or(row.GetError(), p.GetError(), fmt.Sprintf("all of %s lost", count(int(p.GetSent()), "ping", "pings")))
}

// Holes says between which nodes the overlay does not reach. A node that could not be asked is one, however
// many others there are.
func (c Check) Holes() []string {
	var said []string
	for _, row := range c {
		from := nodeName(row.GetHostname(), row.GetNodeId())
		if row.GetError() != "" {
			said = append(said, from+" could not be asked: "+row.GetError())
			continue
		}
		for _, p := range row.GetPings() {
			if lost(p) {
				said = append(said, fmt.Sprintf("%s does not reach %s: %s", from, nodeName(p.GetHostname(), p.GetNodeId()), why(row, p)))
			}
		}
	}
	return said
}

func nodeName(hostname, id string) string { return cmp.Or(hostname, ShortID(id)) }

// Summary is the check in one line.
func (c Check) Summary() string {
	pairs, whole, lossy := 0, 0, 0
	var total time.Duration
	var slowest *warrenv1.Ping
	from := ""
	for _, row := range c {
		for _, p := range row.GetPings() {
			if pairs++; lost(p) {
				continue
			}
			if whole++; percentLost(p) > 0 {
				lossy++
			}
			total += p.GetAverage().AsDuration()
			if slowest == nil || p.GetAverage().AsDuration() > slowest.GetAverage().AsDuration() {
				slowest, from = p, nodeName(row.GetHostname(), row.GetNodeId())
			}
		}
	}
	if pairs == 0 {
		return fmt.Sprintf("%s: there is nothing to ping.", count(len(c), "node", "nodes"))
	}
	said := fmt.Sprintf("%s, %s: ", count(len(c), "node", "nodes"), count(pairs, "way", "ways"))
	if whole == pairs {
		said += "no holes"
	} else {
		said += count(pairs-whole, "hole", "holes")
	}
	if lossy > 0 {
		said += fmt.Sprintf(", loss on %d", lossy)
	}
	if whole > 0 {
		said += fmt.Sprintf("; %s on average, slowest %s from %s to %s", latency(durationpb.New(total/time.Duration(whole))),
			latency(slowest.GetAverage()), from, nodeName(slowest.GetHostname(), slowest.GetNodeId()))
	}
	return said + "."
}

// Matrix is the table of what came from each node to each other, or, of many nodes, of the pairs that are not
// whole.
func (c Check) Matrix() *output.Table {
	names, ids := map[string]string{}, []string{}
	know := func(id, hostname string) {
		if _, known := names[id]; !known {
			names[id] = nodeName(hostname, id)
			ids = append(ids, id)
		}
	}
	for _, row := range c {
		know(row.GetNodeId(), row.GetHostname())
		for _, p := range row.GetPings() {
			know(p.GetNodeId(), p.GetHostname())
		}
	}
	if len(ids) > widestMatrix {
		return c.pairs(func(p *warrenv1.Ping) bool { return lost(p) || percentLost(p) > 0 })
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(strings.Compare(names[a], names[b]), strings.Compare(a, b)) })
	t := &output.Table{Columns: []output.Column{{Title: "FROM \\ TO", Key: "From"}}}
	for _, id := range ids {
		t.Columns = append(t.Columns, output.Column{Title: names[id], Key: id})
	}
	for _, row := range c {
		cells := []output.Cell{cell(names[row.GetNodeId()])}
		for _, id := range ids {
			at := slices.IndexFunc(row.GetPings(), func(p *warrenv1.Ping) bool { return p.GetNodeId() == id })
			switch {
			case id == row.GetNodeId():
				cells = append(cells, output.Cell{Text: "-", Colour: output.Faint})
			case row.GetError() != "":
				cells = append(cells, output.Cell{Text: "?", Colour: output.Bad})
			case at < 0: // not asked for
				cells = append(cells, output.Cell{})
			default:
				cells = append(cells, pinged(row.GetPings()[at]))
			}
		}
		t.Rows = append(t.Rows, output.Row{ID: row.GetNodeId(), Name: row.GetHostname(), Object: row, Cells: cells})
	}
	return t
}

func pinged(p *warrenv1.Ping) output.Cell {
	switch {
	case lost(p):
		return output.Cell{Text: "HOLE", Colour: output.Bad}
	case percentLost(p) > 0:
		return output.Cell{Text: fmt.Sprintf("%s %d%% lost", latency(p.GetAverage()), percentLost(p)), Colour: output.Warning}
	}
	return output.Cell{Text: latency(p.GetAverage()), Colour: output.Good}
}

// Pairs is the table of every node and every other.
func (c Check) Pairs() *output.Table {
	return c.pairs(func(*warrenv1.Ping) bool { return true })
}

func (c Check) pairs(show func(*warrenv1.Ping) bool) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "FROM", Key: "From"}, {Title: "TO", Key: "To"}, {Title: "ADDRESS", Key: "Address"}, {Title: "SENT", Key: "Sent"},
		{Title: "LOST", Key: "Lost"}, {Title: "MIN", Key: "Min"}, {Title: "AVERAGE", Key: "Average"}, {Title: "MAX", Key: "Max"},
		{Title: "ERROR", Key: "Error", Elastic: true},
	}}
	for _, row := range c {
		for _, p := range row.GetPings() {
			if !show(p) {
				continue
			}
			cells := []output.Cell{
				cell(nodeName(row.GetHostname(), row.GetNodeId())), cell(nodeName(p.GetHostname(), p.GetNodeId())), cell(p.GetAddress()),
				number(p.GetSent()), {Text: fmt.Sprintf("%d%%", percentLost(p)), Colour: lossColour(p)},
			}
			for _, d := range []*durationpb.Duration{p.GetMin(), p.GetAverage(), p.GetMax()} {
				if d == nil {
					cells = append(cells, output.Cell{})
				} else {
					cells = append(cells, cell(latency(d)))
				}
			}
			t.Rows = append(t.Rows, output.Row{ID: row.GetNodeId(), Name: row.GetHostname(), Object: row, Cells: append(cells, cell(why(row, p)))})
		}
	}
	return t
}

func lossColour(p *warrenv1.Ping) output.Colour {
	switch {
	case lost(p):
		return output.Bad
	case percentLost(p) > 0:
		return output.Warning
	}
	return output.Good
}

// Rows is the table whose objects are the rows, for programs.
func (c Check) Rows() *output.Table {
	t := &output.Table{}
	for _, row := range c {
		t.Rows = append(t.Rows, output.Row{ID: row.GetNodeId(), Name: row.GetHostname(), Object: row})
	}
	return t
}
