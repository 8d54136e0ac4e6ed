package simulation

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cuemby/warren/internal/manager/slot"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A service that runs keeps its strength whatever its owner does to it: updates, also to an image that
// cannot be pulled, changes of placement, drained nodes. One that starts and then crashes can only be
// seen when it has, but must not be carried on to the whole service.
func TestAServiceKeepsItsStrengthWhileItIsChanged(t *testing.T) {
	const nodes, replicas = 20, 30
	for _, c := range []struct {
		order    warrenv1.UpdateOrder
		parallel uint32
		least    int // tasks running at any time
		crashed  int // tasks left when the new image crashes
	}{
		{warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, 1, replicas, replicas - 10},
		{warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, 7, replicas, 0},
		{warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1, replicas - 1, replicas - 10},
		{warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 7, replicas - 7, 0},
	} {
		t.Run(fmt.Sprintf("%v,%d", c.order, c.parallel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, nodes)
				defer w.start()()
				strength := 0
				w.watch = func(s state.Snapshot) {
					running := 0
					for task := range s.TasksByService("web") {
						if slot.Running(task) && task.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING {
							running++
						}
					}
					if running < strength {
						t.Errorf("only %d tasks run, after %v", running, time.Since(statetest.Epoch))
						strength = 0 // once is enough
					}
				}
				service := statetest.Replicated("web", replicas, func(s *warrenv1.Service) {
					s.Spec.Task.Container.Image = goodImage + ":1"
					s.Spec.Update = &warrenv1.UpdatePolicy{Order: c.order, Parallelism: c.parallel}
				})
				w.add(service)
				w.await("the service to run", w.whole)
				strength = c.least

				update := func(image string) {
					w.change("web", func(s *warrenv1.Service) {
						s.Revision++
						s.Spec.Task.Container.Image = fmt.Sprintf("%s:%d", image, s.Revision)
					})
				}
				update(goodImage)
				w.await("an update", w.whole)
				update(badImage)
				time.Sleep(3 * time.Minute)
				if n := w.running(goodImage); n < c.least {
					t.Errorf("an update to an image that cannot be pulled left %d tasks running", n)
				}
				update(goodImage)
				w.await("the way back", w.whole)
				strength = 0
				update(crashImage)
				time.Sleep(3 * time.Minute)
				if n := w.running(goodImage); n < c.crashed {
					t.Errorf("an update to an image that crashes left %d tasks running", n)
				}
				update(goodImage)
				w.await("the way back once more", w.whole)
				strength = c.least
				w.edit(w.agents[0].id, func(n *warrenv1.Node) { n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN })
				w.edit(w.agents[1].id, func(n *warrenv1.Node) { n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN })
				w.await("two nodes to be drained", w.whole)
				w.change("web", func(s *warrenv1.Service) {
					s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"engine.labels.zone != a"}}
				})
				w.await("the service to leave a zone", w.whole)
			})
		})
	}
}

// running counts the running tasks whose image is of that kind.
func (w *world) running(kind string) int {
	s, n := w.store.Snapshot(), 0
	for t := range s.TasksByService("web") {
		image := s.Revision("web", t.GetRevision()).GetTask().GetContainer().GetImage()
		if slot.Running(t) && image[:len(kind)] == kind {
			n++
		}
	}
	return n
}
