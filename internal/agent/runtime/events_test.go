package runtime

import (
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
)

// containerd that cannot clean up after a shim that died tells the end without a pid.
func TestAnExitWithoutAPidIsThatOfTheProcessThatIsExpected(t *testing.T) {
	b := newBench(t)
	c := b.container("nameless", "sleep")
	b.run(c)
	tell := func() {
		t.Helper()
		err := b.client.EventService().Publish(b.context(t.Context()), exitTopic, &apievents.TaskExit{ContainerID: c.ID, ID: c.ID, ExitStatus: 255})
		if err != nil {
			t.Fatal(err)
		}
	}
	tell()
	if e := b.exit(c.ID); e.Code != 255 {
		t.Errorf("exit %+v", e)
	}
	b.expect(c.ID, 0) // as while it is being removed
	tell()
	other := b.container("other", "echo", "ended")
	b.run(other)
	select {
	case e := <-b.exits:
		if e.ID != other.ID {
			t.Errorf("a container that is being removed ended: %+v", e)
		}
	case <-time.After(patience):
		t.Error("nothing is told any more")
	}
}
