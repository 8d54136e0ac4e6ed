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
// cannot be pulled, that crashes or that is found unhealthy, changes of placement, drained nodes. From a bad image it comes back
// by itself.
func TestAServiceKeepsItsStrengthWhileItIsChanged(t *testing.T) {
	const nodes, replicas = 20, 30
	for _, c := range []struct {
		order    warrenv1.UpdateOrder
		parallel uint32
		least    int // tasks serving at any time
	}{
		{warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, 1, replicas},
		{warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST, 7, replicas},
		{warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1, replicas - 1},
		{warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 7, replicas - 7},
	} {
		t.Run(fmt.Sprintf("%v,%d", c.order, c.parallel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, large(nodes))
				defer w.start()()
				strength := 0
				w.watch = func(s state.Snapshot) {
					running := 0
					for task := range s.TasksByService("web") {
						if slot.Serving(task) && task.GetDesired() == warrenv1.DesiredState_DESIRED_STATE_RUNNING {
							running++
						}
					}
					if running < strength {
						t.Errorf("only %d tasks serve, after %v", running, time.Since(statetest.Epoch))
						strength = 0 // once is enough
					}
				}
				service := statetest.Replicated("web", replicas, func(s *warrenv1.Service) {
					s.Spec.Task.Container.Image = goodImage + ":0"
					s.Spec.Update = &warrenv1.UpdatePolicy{Order: c.order, Parallelism: c.parallel}
				})
				w.add(service)
				w.expect("the service to run", w.whole)
				strength = c.least

				update := func(image string) {
					w.names++
					w.change("web", func(s *warrenv1.Service) {
						s.Spec.Task.Container.Image = fmt.Sprintf("%s:%d", image, w.names)
					})
				}
				update(goodImage)
				w.expect("an update", w.whole)
				for _, bad := range []string{badImage, crashImage, sickImage} {
					before := w.store.Snapshot().Service("web").GetRevision()
					update(bad)
					w.expect("the way back from an image that is "+bad, w.whole)
					s := w.store.Snapshot()
					after := s.Service("web")
					if after.GetRevision() != before || w.running(goodImage) != replicas || s.Revision("web", after.GetLastRevision()).GetFailure() == "" {
						t.Errorf("an update to an image that is %s came to %v", bad, after)
					}
				}
				update(goodImage)
				w.expect("another update", w.whole)
				w.edit(w.agents[0].id, func(n *warrenv1.Node) { n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN })
				w.edit(w.agents[1].id, func(n *warrenv1.Node) { n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN })
				w.expect("two nodes to be drained", w.whole)
				w.change("web", func(s *warrenv1.Service) {
					s.Spec.Placement = &warrenv1.Placement{Constraints: []string{"engine.labels.zone != a"}}
				})
				w.expect("the service to leave a zone", w.whole)
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

// expect is await for tests that tell their own story.
func (w *world) expect(what string, check func() error) {
	w.t.Helper()
	if !w.await(what, check) {
		w.t.Fatalf("%s: %v\n%s", what, w.breach(), w.breach().account)
	}
}
