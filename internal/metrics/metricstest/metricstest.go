// Package metricstest holds what the tests of the daemons' metrics have in common: how a registry is checked,
// and how it stands in docs/metrics.md.
package metricstest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// Registry is what prometheus.Registry offers.
type Registry interface {
	prometheus.Gatherer
	prometheus.Collector
}

// Families gathers everything, by name.
func Families(t *testing.T, from prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]*dto.MetricFamily{}
	for _, f := range all {
		families[f.GetName()] = f
	}
	return families
}

// Check fails the test where promlint has something to say of the registry, where a described metric is not
// there, which the caller has to see to, and where the section of docs/metrics.md is not the table of its metrics.
func Check(t *testing.T, r Registry, section string, own func(name string) bool) {
	t.Helper()
	families := Families(t, r)
	var all []*dto.MetricFamily
	for name, f := range families {
		if strings.HasPrefix(name, "warren_") {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	complaints, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range complaints {
		t.Errorf("promlint: %s: %s", c.Metric, c.Text)
	}
	for _, name := range Described(r) {
		if families[name] == nil && strings.HasPrefix(name, "warren_") {
			t.Errorf("%s is described and has no value: have the test give it one", name)
		}
	}
	var table strings.Builder
	table.WriteString("| metric | type | labels | |\n| --- | --- | --- | --- |\n")
	for _, f := range all {
		if own(f.GetName()) {
			fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), labels(f), f.GetHelp())
		}
	}
	if got := tableOf(t, section); got != table.String() {
		t.Errorf("the section %q of docs/metrics.md should have:\n%s\nand has:\n%s", section, table.String(), got)
	}
}

func labels(f *dto.MetricFamily) string {
	var names []string
	for _, l := range f.GetMetric()[0].GetLabel() {
		names = append(names, l.GetName())
	}
	return strings.Join(names, ", ")
}

var fullName = regexp.MustCompile(`fqName: "([^"]+)"`)

// Described are the names of all metrics that a registry describes, with and without values.
func Described(r prometheus.Collector) []string {
	to := make(chan *prometheus.Desc)
	go func() {
		r.Describe(to)
		close(to)
	}()
	var names []string
	for d := range to {
		names = append(names, fullName.FindStringSubmatch(d.String())[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Documentation is docs/metrics.md.
func Documentation(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(), "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Root is the repository's folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// tableOf is the table of a section.
func tableOf(t *testing.T, section string) string {
	t.Helper()
	_, rest, found := strings.Cut(Documentation(t), "\n## "+section+"\n")
	if !found {
		t.Fatalf("docs/metrics.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var table strings.Builder
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "| metric |") || strings.HasPrefix(line, "| --- | --- | --- |") || strings.HasPrefix(line, "| `warren_") {
			table.WriteString(line)
		}
	}
	return table.String()
}
