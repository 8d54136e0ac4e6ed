package supervisor

import (
	"cmp"
	"time"

	"github.com/cuemby/warren/internal/lifecycle"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Observer is told what becomes of programs; it must be quick.
type Observer interface {
	// Started is told of a program that has begun to run, and how long that took, from the look at its image on.
	Started(took time.Duration)
	// Ended is told of a program that ended by itself, or was ended for being unhealthy: why is completed, failed, oom or
	// unhealthy. restarts says that it will be started again.
	Ended(why string, restarts bool)
	// Rejected is told of a program that could not be started.
	Rejected()
}

// unobserved is the observer where there is none.
type unobserved struct{}

func (unobserved) Started(time.Duration) {}
func (unobserved) Ended(string, bool)    {}
func (unobserved) Rejected()             {}

// why is how an exit is told to the observer.
func why(exit Exit) string {
	switch {
	case exit.Ailed != "":
		return "unhealthy"
	case exit.OOMKilled:
		return "oom"
	case failed(exit):
		return "failed"
	default:
		return "completed"
	}
}

// Look is how a task stands, for those who look on.
type Look struct {
	// Name is web.1, or web.NODE of a global service.
	ID, Name, Service, ServiceID string
	// Image is what its program is made from, ImageDigest what that stood for where that is known.
	Image, ImageDigest string
	// LimitNanoCPUs is how much of processors it may use; 0 for no limit.
	LimitNanoCPUs int64
	Status        *warrenv1.TaskStatus // not to be changed
	// OwnNetwork says that the program has a network namespace of its own, and not the node's.
	OwnNetwork bool
}

// Look tells how every task of the node stands now.
func (s *Supervisor) Look() []Look {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Look, 0, len(s.tasks))
	for _, t := range s.tasks {
		assignment, progress := t.now()
		task := assignment.GetTask()
		if task == nil {
			continue // not this node's: it is being removed
		}
		all = append(all, Look{
			ID: t.id, Name: lifecycle.Name(task, s.Hostname), Service: task.GetServiceName(), ServiceID: task.GetServiceId(), Status: progress.Status,
			Image: pinned(assignment), ImageDigest: cmp.Or(progress.Status.GetImageDigest(), assignment.GetImageDigest()),
			LimitNanoCPUs: assignment.GetSpec().GetLimits().GetNanoCpus(),
			OwnNetwork:    assignment.GetSpec().GetNetwork() != warrenv1.NetworkMode_NETWORK_MODE_HOST,
		})
	}
	return all
}
