package state

import (
	"google.golang.org/protobuf/proto"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Suppose returns the state as it would be if t were applied to it, and what of it would have changed. Nothing is
// written: it is how a decision is tried out. It fails as the transaction would.
func (s Snapshot) Suppose(t *Transaction) (Snapshot, []Change, error) {
	w := s.tables.write()
	changes, err := plan(w, proto.CloneOf[*statev1.Transaction](t.Message()))
	if err != nil {
		return s, nil, err
	}
	index := s.index + 1
	for _, c := range changes {
		if c.After != nil {
			c.After.GetMeta().Version = index
		}
		w.put(c.Before, c.After)
	}
	after := w.commit()
	return Snapshot{tables: &after, index: index}, changes, nil
}
