package metrics_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/cuemby/warren/internal/metrics/metricstest"
)

// rules is a file of Prometheus's alerts.
type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

const alerts, dashboard = "packaging/prometheus/warren.rules.yml", "packaging/grafana/warren.json"

func TestAlertsSayWhatIsWrongByMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, alerts)))
	decoder.KnownFields(true)
	var all rules
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			if r.Alert == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || seen[r.Alert] {
				t.Errorf("an alert needs a name of its own, a severity and a summary: %+v", r)
			}
			seen[r.Alert] = true
			known(t, r.Alert, r.Expr)
		}
	}
	if len(seen) == 0 {
		t.Error("there are no alerts")
	}
}

func TestTheDashboardShowsMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	var board struct {
		Title  string
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Query string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, dashboard)), &board); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range known(t, p.Title, target.Expr) {
				shown[name] = true
			}
		}
	}
	for _, v := range board.Templating.List {
		known(t, "variable "+v.Name, v.Query)
	}
	if board.Title == "" || len(shown) < 20 {
		t.Errorf("the dashboard %q shows %d of Warren's metrics", board.Title, len(shown))
	}
}

// TestExpressionsAreWellFormed has Prometheus's own tool read them, where it is installed (Debian's package prometheus).
func TestExpressionsAreWellFormed(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: names of metrics alone are checked")
	}
	file := filepath.Join(metricstest.Root(), alerts)
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", alerts, err, out)
	}
}

var (
	metricName = regexp.MustCompile(`\b(warren|process|go)_[a-z0-9_]+`)
	documented = regexp.MustCompile("(?m)^\\| `(warren_[a-z0-9_]+)` \\| (\\w+) \\|")
)

// known fails the test where an expression is of a metric that docs/metrics.md does not describe, which the daemons' own
// tests keep true; it returns those of Warren's.
func known(t *testing.T, where, expr string) (names []string) {
	t.Helper()
	described := map[string]bool{}
	for _, row := range documented.FindAllStringSubmatch(metricstest.Documentation(t), -1) {
		if row[2] == "histogram" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				described[row[1]+part] = true
			}
			continue
		}
		described[row[1]] = true
	}
	all := metricName.FindAllString(expr, -1)
	if len(all) == 0 && strings.Contains(expr, "(") {
		t.Errorf("%s: %s is of no metric of Warren's", where, expr)
	}
	for _, name := range all {
		switch {
		case described[name]:
			names = append(names, name)
		case strings.HasPrefix(name, "warren_"):
			t.Errorf("%s: docs/metrics.md knows no %s", where, name)
		}
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(metricstest.Root(), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
