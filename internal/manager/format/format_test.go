package format

import (
	"testing"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func member(id string, format uint32) state.Object {
	return &statev1.Member{Meta: &warrenv1.Meta{Id: id}, Format: format}
}

func TestTheStateGoesOverWhenEveryManagerKnowsTheFormat(t *testing.T) {
	for name, c := range map[string]struct {
		known    uint32
		now      uint32
		managers []uint32
		want     uint32
	}{
		"all know it":                      {2, 1, []uint32{2, 2, 2}, 2},
		"one has not been upgraded":        {2, 1, []uint32{2, 1, 2}, 1},
		"one is of before there were any":  {2, 0, []uint32{2, 0}, 0},
		"the others know more":             {2, 1, []uint32{2, 3}, 2},
		"two at once":                      {3, 1, []uint32{3, 3}, 3},
		"it is never lowered":              {2, 2, []uint32{2, 1}, 2},
		"nothing is written for the first": {1, 0, []uint32{1, 1, 1}, 0},
	} {
		objects := []state.Object{statetest.Cluster(func(o *warrenv1.Cluster) { o.Format = c.now })}
		for i, format := range c.managers {
			objects = append(objects, member(string(rune('a'+i)), format))
		}
		store := statetest.New(t, objects...)
		transaction := decide(store.Snapshot(), c.known, statetest.Epoch)
		if (transaction.Len() > 0) != (c.want != c.now) {
			t.Errorf("%s: %d operations", name, transaction.Len())
		}
		if transaction.Len() > 0 {
			statetest.Commit(t, statetest.NewProposer(store), transaction)
		}
		if got := store.Snapshot().Cluster().GetFormat(); got != c.want {
			t.Errorf("%s: format %d, want %d", name, got, c.want)
		}
	}
}

func TestThereIsNothingToDecideBeforeThereIsACluster(t *testing.T) {
	if got := decide(statetest.New(t).Snapshot(), 2, statetest.Epoch).Len(); got != 0 {
		t.Errorf("%d operations", got)
	}
}
