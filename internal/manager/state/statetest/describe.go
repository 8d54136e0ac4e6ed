package statetest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cuemby/warren/internal/manager/state"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Describe tells what a transaction does to a state in the words of tests, an operation each and in order:
// "create web.3@2" (slot 3, revision 2), "create web.n1@2" (on node n1), "shutdown t1", "remove t1", "lost t1", "down n1",
// "delete task t1". Checks are left out.
func Describe(s state.Snapshot, t *state.Transaction) []string {
	var said []string
	if t == nil {
		return nil
	}
	for _, op := range t.Message().GetOperations() {
		switch a := op.GetAction().(type) {
		case *statev1.Operation_Create:
			_, o := carried(a.Create)
			said = append(said, "create "+name(o))
		case *statev1.Operation_Delete:
			said = append(said, "delete "+tableName(a.Delete.GetTable())+" "+a.Delete.GetId())
		case *statev1.Operation_Update:
			_, o := carried(a.Update)
			said = append(said, become(Lookup(s, state.KeyOf(o)), o)+" "+o.GetMeta().GetId())
		}
	}
	return said
}

func name(o state.Object) string {
	t, ok := o.(*warrenv1.Task)
	if !ok {
		return o.GetMeta().GetId()
	}
	at := t.GetNodeId()
	if t.GetSlot() > 0 {
		at = strconv.FormatUint(uint64(t.GetSlot()), 10)
	}
	return fmt.Sprintf("%s.%s@%d", t.GetServiceName(), at, t.GetRevision())
}

// become says what an object has become by an update.
func become(before, after state.Object) string {
	switch after := after.(type) {
	case *warrenv1.Task:
		before := before.(*warrenv1.Task)
		if before.GetStatus().GetState() == after.GetStatus().GetState() && before.GetDesired() != after.GetDesired() {
			return short(after.GetDesired().String())
		}
		return short(after.GetStatus().GetState().String())
	case *warrenv1.Node:
		return short(after.GetStatus().GetState().String())
	}
	return "update"
}

// short makes "shutdown" of DESIRED_STATE_SHUTDOWN.
func short(enum string) string {
	return strings.ToLower(enum[strings.LastIndex(enum, "_")+1:])
}
