package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	events "github.com/containerd/containerd/api/events"
	coreevents "github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// Event is an Exit or a Resync.
type Event interface{ event() }

// Exit says that a container's first process has ended. Its output is in the log by then. It may be
// told more than once.
type Exit struct {
	ID string
	// Code is 128 plus the signal's number where a signal ended it.
	Code uint32
	// OOMKilled says that the kernel killed it for want of memory.
	OOMKilled bool
	At        time.Time
}

// Resync says that events may have been missed and that none will be from now on: List anew.
type Resync struct{}

func (Exit) event()   {}
func (Resync) event() {}

const (
	exitTopic = "/tasks/exit"
	// helloTopic is our own: hearing ourselves proves that we hear.
	helloTopic = "/warren/hello"
)

// Events calls on for each event, one at a time, until ctx ends, whose error it returns. The first is a
// Resync; so is the first after each time containerd was away.
func (r *Runtime) Events(ctx context.Context, on func(Event)) error {
	ctx = r.context(ctx)
	queue := make(chan Event)
	var drains sync.WaitGroup
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.subscribeAgain(ctx, queue, &drains)
		drains.Wait()
	}()
	for {
		select {
		case e := <-queue:
			on(e)
		case <-ended:
			return ctx.Err()
		}
	}
}

// subscribeAgain keeps one subscription going until ctx ends.
func (r *Runtime) subscribeAgain(ctx context.Context, queue chan<- Event, drains *sync.WaitGroup) {
	const shortest, longest = 20 * time.Millisecond, 250 * time.Millisecond
	pause, away := shortest, false
	for {
		heard, err := r.subscribe(ctx, queue, drains)
		if ctx.Err() != nil {
			return
		}
		if heard {
			pause, away = shortest, false
		}
		if !away {
			away = true
			r.logger.Warn("containerd's events ended; connecting again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// subscribe serves one subscription until it breaks; heard says whether it ever worked.
func (r *Runtime) subscribe(ctx context.Context, queue chan<- Event, drains *sync.WaitGroup) (heard bool, err error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	service := r.client.EventService()
	mine := `namespace=="` + r.options.Namespace + `"`
	stream, failed := service.Subscribe(ctx, mine+`,topic=="`+exitTopic+`"`, mine+`,topic=="`+helloTopic+`"`)

	// containerd does not say when a subscription has begun. So we send it an event until it comes back.
	hello := strconv.FormatInt(time.Now().UnixNano(), 36)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	var greetings sync.WaitGroup
	defer greetings.Wait()
	defer cancel()
	greeted := make(chan error, 1)
	greet := func() {
		greetings.Go(func() {
			if err := service.Publish(ctx, helloTopic, &events.ContainerCreate{ID: hello}); err != nil {
				select {
				case greeted <- err:
				default:
				}
			}
		})
	}
	greet()
	for {
		select {
		case <-ctx.Done():
			return heard, ctx.Err()
		case err := <-failed:
			if err == nil {
				err = errors.New("containerd closed the stream")
			}
			return heard, err
		case err := <-greeted:
			if !heard {
				return heard, fmt.Errorf("say hello: %w", err)
			}
		case <-again.C:
			greet()
		case envelope := <-stream:
			event, err := decode(envelope)
			if err != nil {
				r.logger.Warn("an event of containerd cannot be understood", "topic", envelope.Topic, "error", err)
				continue
			}
			switch event := event.(type) {
			case *events.ContainerCreate:
				if event.ID == hello && !heard {
					heard = true
					again.Stop()
					if !send(outer, queue, Resync{}) {
						return heard, outer.Err()
					}
				}
			case *events.TaskExit:
				if event.ID != event.ContainerID || !r.expects(event.ContainerID, event.Pid) {
					continue // a process beside the first one, or one that was replaced or removed
				}
				at := event.ExitedAt.AsTime()
				// Not in line: one container's last output must not hold up another's exit.
				drains.Go(func() {
					exit := r.exit(event.ContainerID, event.ExitStatus, at)
					r.drain(outer, event.ContainerID)
					send(outer, queue, exit)
				})
			}
		}
	}
}

func decode(envelope *coreevents.Envelope) (any, error) {
	if envelope == nil || envelope.Event == nil {
		return nil, errors.New("it is empty")
	}
	return typeurl.UnmarshalAny(envelope.Event)
}

func send(ctx context.Context, queue chan<- Event, e Event) bool {
	select {
	case queue <- e:
		return true
	case <-ctx.Done():
		return false
	}
}
