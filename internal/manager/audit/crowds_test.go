package audit

import (
	"testing"
	"time"
)

func TestOfACrowdsRefusalsSomeAreWrittenAndTheRestCounted(t *testing.T) {
	var c crowds
	began := time.Now()
	for i := range 1000 {
		room, unwritten := c.admit(began.Add(time.Duration(i) * time.Microsecond))
		if room != (i < mostPerSecond) || unwritten != 0 {
			t.Fatalf("call %d: room is %v, %d unwritten", i, room, unwritten)
		}
	}
	if room, unwritten := c.admit(began.Add(time.Second)); !room || unwritten != 1000-mostPerSecond {
		t.Errorf("a second later: room is %v, %d unwritten", room, unwritten)
	}
	if room, unwritten := c.admit(began.Add(time.Second)); !room || unwritten != 0 {
		t.Errorf("then: room is %v, %d unwritten", room, unwritten)
	}
}
