package agent

import (
	"context"
	"errors"

	"github.com/cuemby/warren/internal/agent/overlay"
	"github.com/cuemby/warren/internal/agent/supervisor"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// places gives the supervisor its view of the overlay, which does not know it.
type places struct{ *overlay.Overlay }

var _ supervisor.Network = places{}

// Attach implements supervisor.Network.
func (p places) Attach(ctx context.Context, a *warrenv1.Assignment, progress func(string)) (supervisor.Place, error) {
	place, err := p.Overlay.Attach(ctx, a, progress)
	return supervisor.Place(place), passing(err, func(err error) bool { return !errors.Is(err, overlay.ErrExhausted) })
}
