package consensus_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTheNextWriteSucceedsWellWithinTwoSecondsOfTheLossOfTheLeader(t *testing.T) {
	for _, size := range []int{3, 5} {
		story(t, []string{"m1", "m2", "m3", "m4", "m5"}[:size], func(t *testing.T, c *cluster) {
			random := rand.New(rand.NewPCG(1, uint64(size)))
			c.network.Delay(func(string, string) time.Duration { return rand.N(2 * time.Millisecond) })
			var took []time.Duration
			for range 60 {
				leader := c.leader()
				time.Sleep(time.Second + time.Duration(random.Int64N(int64(time.Second))))
				began := time.Now()
				leader.stop()
				if err := c.leader(leader.id).create("n" + time.Now().String()); err != nil {
					t.Fatal(err)
				}
				took = append(took, time.Since(began))
				back := c.start(leader.id)
				if err := back.AwaitApplied(t.Context(), c.leader().store.Snapshot().Index()); err != nil {
					t.Fatal(err)
				}
			}
			slices.Sort(took)
			if took[len(took)/2] > time.Second || took[len(took)-1] > 2*time.Second {
				t.Error("that is too long")
			}
			t.Logf("%d managers: median %v, worst %v of %d", size, took[len(took)/2], took[len(took)-1], len(took))
		})
	}
}
