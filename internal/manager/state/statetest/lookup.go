package statetest

import (
	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Lookup returns the object of that key, nil where there is none.
func Lookup(s state.Snapshot, k state.Key) state.Object {
	switch k.Table {
	case statev1.Table_TABLE_NODE:
		return orNil(s.Node(k.ID))
	case statev1.Table_TABLE_SERVICE:
		return orNil(s.Service(k.ID))
	case statev1.Table_TABLE_TASK:
		return orNil(s.Task(k.ID))
	}
	for o := range s.Objects() {
		if state.KeyOf(o) == k {
			return o
		}
	}
	return nil
}

// orNil makes a plain nil of a nil pointer.
func orNil[T interface {
	comparable
	state.Object
}](o T) state.Object {
	var none T
	if o == none {
		return nil
	}
	return o
}
