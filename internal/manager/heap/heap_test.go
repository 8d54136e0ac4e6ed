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
		want  int
	}{
		{"idle and small", 8 << 20, time.Minute, idlePercent},
		{"busy and small", 8 << 20, 100 * time.Millisecond, busyPercent},
		{"busy, half as large as its room", 48 << 20, 100 * time.Millisecond, 200},
		{"busy and large", 300 << 20, 100 * time.Millisecond, idlePercent},
		{"not measured yet", 0, 100 * time.Millisecond, idlePercent},
	} {
		if got := percent(c.live, c.since); got != c.want {
			t.Errorf("%s: %d percent, want %d", c.name, got, c.want)
		}
	}
}
