package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUsageIsReadOfBothVersionsOfControlGroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version int
		files   map[string]string
		want    Usage
	}{
		"version 1": {1, map[string]string{
			"cpuacct/warren/a-1/cpuacct.usage":        "1500000000\n",
			"cpu/warren/a-1/cpu.stat":                 "nr_periods 10\nnr_throttled 2\nthrottled_time 250000000\n",
			"memory/warren/a-1/memory.usage_in_bytes": "5000\n",
			"memory/warren/a-1/memory.limit_in_bytes": "67108864\n",
			"memory/warren/a-1/memory.stat":           "inactive_file 1\ntotal_inactive_file 1000\n",
			"memory/warren/a-1/memory.oom_control":    "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
		}, Usage{CPU: 1500 * time.Millisecond, Throttled: 250 * time.Millisecond, Memory: 4000, MemoryLimit: 64 << 20, MemoryKills: 3}},
		"version 1 without limits": {1, map[string]string{
			"cpuacct/warren/a-1/cpuacct.usage":        "7\n",
			"memory/warren/a-1/memory.usage_in_bytes": "5000\n",
			"memory/warren/a-1/memory.limit_in_bytes": "9223372036854771712\n",
		}, Usage{CPU: 7, Memory: 5000}},
		"version 2": {2, map[string]string{
			"warren/a-1/cpu.stat":       "usage_usec 1500000\nuser_usec 1\nthrottled_usec 250000\n",
			"warren/a-1/memory.current": "5000\n",
			"warren/a-1/memory.max":     "67108864\n",
			"warren/a-1/memory.stat":    "anon 1\ninactive_file 6000\n",
			"warren/a-1/memory.events":  "oom 1\noom_kill 3\n",
		}, Usage{CPU: 1500 * time.Millisecond, Throttled: 250 * time.Millisecond, MemoryLimit: 64 << 20, MemoryKills: 3}},
		"version 2 without limits": {2, map[string]string{
			"warren/a-1/cpu.stat":       "usage_usec 7\n",
			"warren/a-1/memory.current": "5000\n",
			"warren/a-1/memory.max":     "max\n",
		}, Usage{CPU: 7 * time.Microsecond, Memory: 5000}},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			path := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := readUsage(root, c.version, "/warren/a-1"); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, c.want)
		}
		if _, err := readUsage(root, c.version, "/warren/b-1"); err == nil {
			t.Errorf("%s: a container that is not there has a usage", name)
		}
	}
}
