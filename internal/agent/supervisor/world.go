package supervisor

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/cuemby/warren/internal/agent/prober"
	"github.com/cuemby/warren/internal/agent/store"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ErrTransient is in the chain of a runtime's error when the same call may well succeed later: the
// runtime cannot be reached, a registry's connection broke. Any other error is for good.
var ErrTransient = errors.New("may succeed later")

// Transient puts ErrTransient into an error's chain and leaves its words alone; nil stays nil.
func Transient(err error) error {
	if err == nil {
		return nil
	}
	return transientError{err}
}

type transientError struct{ error }

func (e transientError) Unwrap() error        { return e.error }
func (e transientError) Is(target error) bool { return target == ErrTransient }

// Runtime is what the supervisor needs of the container runtime. Every method may be called again for
// what is already done. Containers are named TASK-ATTEMPT.
type Runtime interface {
	// Pull makes the image present, at once if it is, and tells its progress in words.
	Pull(ctx context.Context, image string, progress func(string)) (Image, error)
	// Create makes a container that can be started.
	Create(ctx context.Context, c Container) (Process, error)
	// Start runs a created container's program.
	Start(ctx context.Context, id string) (Process, error)
	// Signal sends a signal to the program; no error if it has ended.
	Signal(ctx context.Context, id string, signal syscall.Signal) error
	// StopSignal is the signal that asks the program to end.
	StopSignal(ctx context.Context, id string) (syscall.Signal, error)
	// Remove removes the container and all it has but its output, killing it if it runs.
	Remove(ctx context.Context, id string) error
	// List lists all of this node's containers.
	List(ctx context.Context) ([]Found, error)
	// Reattach takes up a running container that another agent process has started.
	Reattach(ctx context.Context, id string) error
	// Events tells what happens until ctx ends; it fails for no other reason.
	Events(ctx context.Context, on func(Event)) error
}

// Network is what the supervisor needs of the node's overlay. Every method may be called again for what is
// already done, of many tasks at once, and of one task one at a time but for Serve, Withdraw and Declares.
// The place belongs to the task, not to an attempt: it outlives containers, agents and, but for the
// namespace, the machine's running.
type Network interface {
	// Attach gives a task its place: the same as before where it has one, with a namespace made anew where
	// that is gone. It waits for the overlay to come up, which progress is told in words, and fails with
	// ErrTransient while the overlay has failed; any other error is for good, and the task's owner reads it.
	Attach(ctx context.Context, a *warrenv1.Assignment, progress func(string)) (Place, error)
	// Declares tells whether the task's service declares ports, so that the task takes no connections before
	// Listening has returned.
	Declares(task string) bool
	// Listening returns nil when the task listens on every port that its service declares, at once where it
	// declares none, and else ctx's error. missing is told, at most every few seconds, of ports that have
	// not come to listen for a while, in words: 8080/tcp.
	Listening(ctx context.Context, task string, missing func(ports string)) error
	// Serve has this node send connections to the task.
	Serve(task string)
	// Withdraw has this node send it no new ones, from now on, if it did. Established ones stay.
	Withdraw(task string)
	// Detach takes the task off the overlay, which need not be up, and returns at once where it is not on it: an agent
	// that begins calls it for every ended task whose output it keeps.
	Detach(ctx context.Context, task string) error
	// Attached lists the tasks that have a place or anything left of one.
	Attached(ctx context.Context) ([]string, error)
}

// Place is a task's place on the overlay; zero on another network.
type Place struct {
	// Namespace is the path of the network namespace, whose links are up, loopback with them.
	Namespace string
	Address   netip.Addr
	// ResolvConf is the content of the task's /etc/resolv.conf.
	ResolvConf []byte
}

func (p Place) address() string {
	if !p.Address.IsValid() {
		return ""
	}
	return p.Address.String()
}

// Prober finds out whether programs do their work; prober.Prober is one.
type Prober interface {
	// Watch probes a program until ctx ends, and returns at once.
	Watch(ctx context.Context, s prober.Subject)
}

// Output is what the supervisor needs of the kept output of tasks.
type Output interface {
	// Tail returns the last lines of a task since a time, at most so many lines and bytes.
	Tail(task string, since time.Time, lines, bytes int) string
	// Remove removes what is kept of a task.
	Remove(task string) error
	// List lists the tasks of which something is kept.
	List() ([]string, error)
}

// Journal is what the supervisor keeps on disk; the agent's store is one.
type Journal interface {
	Tasks() (map[string]store.Task, error)
	Assign(assignments ...*warrenv1.Assignment) *store.Commit
	Advance(task string, progress store.Progress) *store.Commit
	Note(task string, progress store.Progress) *store.Commit
	Forget(task string) *store.Commit
}

// Image is an image that is present.
type Image struct {
	Name   string
	Digest string
	// Health is its own HEALTHCHECK; nil where it has none.
	Health *warrenv1.HealthCheck
}

// Container is what a container is made of.
type Container struct {
	// ID is TASK-ATTEMPT.
	ID                     string
	TaskID, TaskName       string
	ServiceID, ServiceName string
	NodeID, NodeHostname   string
	Slot, Attempt          uint32
	Image                  Image
	Place                  Place
	Spec                   *warrenv1.TaskSpec
}

// Process is a container's program.
type Process struct {
	Pid uint32
}

// Found is a container that was found.
type Found struct {
	ID, TaskID  string
	Attempt     uint32
	Running     bool
	Pid         uint32
	Exit        *Exit // how its program ended; nil if it runs, never ran, or nobody knows
	ImageDigest string
	StartedAt   time.Time
	Health      *warrenv1.HealthCheck // its image's own
}

// Event is something that happened at the runtime: an Exit or a Resync.
type Event interface{ event() }

// Exit says that a container's program ended.
type Exit struct {
	ID        string
	Code      uint32
	OOMKilled bool
	At        time.Time
	// Unseen is set by the supervisor where the end itself was not seen: the container was found gone.
	Unseen bool
	// Ailed is set by the supervisor where the program was ended for being unhealthy, and says why.
	Ailed string
}

// Resync says that events may have been missed, as at every connection to the runtime: what there is
// must be listed anew.
type Resync struct{}

func (Exit) event()   {}
func (Resync) event() {}
