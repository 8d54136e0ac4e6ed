package session

import (
	"slices"
	"testing"
)

func TestEveryManagerIsTriedOnceTheLastThatWorkedFirstAndALostOneLast(t *testing.T) {
	addrs := []string{"a", "b", "c", "d"}
	firsts := map[string]bool{}
	for range 200 {
		var order []string
		r := newRound("", "b")
		for {
			addr, ok := r.next(addrs)
			if !ok {
				break
			}
			order = append(order, addr)
		}
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, addrs) || order[3] != "b" {
			t.Fatalf("tried %q", order)
		}
		firsts[order[0]] = true
		if first, _ := newRound("c", "").next(addrs); first != "c" {
			t.Fatalf("tried %q first", first)
		}
	}
	if len(firsts) != 3 {
		t.Errorf("in two hundred rounds these came first: %v", firsts)
	}
	if _, ok := newRound("a", "").next(nil); ok {
		t.Error("there was a manager where there is none")
	}
}
