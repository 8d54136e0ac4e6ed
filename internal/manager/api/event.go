package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/forward"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// maxEventsPerMessage bounds a message of the stream.
const maxEventsPerMessage = 256

// eventService tells what happens.
type eventService struct{ log *events.Log }

var _ warrenv1connect.EventServiceHandler = (*eventService)(nil)

// WatchEvents implements warrenv1connect.EventServiceHandler.
func (h *eventService) WatchEvents(ctx context.Context, req *connect.Request[warrenv1.WatchEventsRequest], stream *connect.ServerStream[warrenv1.WatchEventsResponse]) error {
	var since time.Time
	if from := req.Msg.GetSince(); from != nil {
		since = from.AsTime()
	}
	// With an end it waits no longer than that.
	waiting := ctx
	if until := req.Msg.GetUntil(); until != nil {
		var done context.CancelFunc
		waiting, done = context.WithDeadline(ctx, until.AsTime())
		defer done()
	}
	if unknown := slices.IndexFunc(req.Msg.GetActions(), func(action string) bool { return !slices.Contains(events.Actions, action) }); unknown >= 0 {
		return Refuse("no event has the action %q: there are %s", req.Msg.GetActions()[unknown], strings.Join(events.Actions, ", "))
	}
	if forward.Stale(ctx) && !req.Msg.GetNoFollow() {
		return Unavailable("the cluster has no leader: what happens is told again when it has one; without following, what this manager remembers")
	}
	reader := h.log.Reader(since)
	// The headers go now, so that the caller knows that nothing from here on is missed.
	var first *warrenv1.WatchEventsResponse
	if all := h.log.Since(); !all.IsZero() {
		first = &warrenv1.WatchEventsResponse{RememberedSince: timestamppb.New(all)}
	}
	if err := stream.Send(first); err != nil {
		return err
	}
	for {
		taken, err := reader.Take(maxEventsPerMessage)
		if err != nil {
			return err
		}
		if len(taken) == 0 {
			if req.Msg.GetNoFollow() {
				return nil
			}
			if err := reader.Wait(waiting); err != nil {
				if ctx.Err() == nil {
					return nil // the time asked for is over
				}
				return err
			}
			continue
		}
		wanted := slices.DeleteFunc(taken, func(e *warrenv1.Event) bool {
			return !events.Wanted(e, req.Msg)
		})
		if len(wanted) == 0 {
			continue
		}
		if err := stream.Send(&warrenv1.WatchEventsResponse{Events: wanted}); err != nil {
			return err
		}
	}
}
