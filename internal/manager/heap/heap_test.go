package heap

import (
	"testing"
	"time"
)

func TestABusySmallHeapMayGrowFurther(t *testing.T) {
	for _, c := range []struct {
		name  string
		live  uint64
		since time.Duration
		set   int
		want  int
	}{
		{"idle and small", 8 << 20, time.Minute, idlePercent, idlePercent},
		{"busy and small", 8 << 20, 100 * time.Millisecond, idlePercent, busyPercent},
		{"busy, half as large as its room", 48 << 20, 100 * time.Millisecond, idlePercent, 200},
		{"as busy as before, collected more rarely since", 8 << 20, 2 * time.Second, busyPercent, busyPercent},
		{"idle again", 8 << 20, 6 * time.Second, busyPercent, idlePercent},
		{"busy and large", 300 << 20, 100 * time.Millisecond, idlePercent, idlePercent},
		{"not measured yet", 0, 100 * time.Millisecond, idlePercent, idlePercent},
	} {
		if got := percent(c.live, c.since, c.set); got != c.want {
			t.Errorf("%s: %d percent, want %d", c.name, got, c.want)
		}
	}
}
