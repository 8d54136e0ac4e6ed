package manager

import (
	"context"
	"fmt"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/manager/state"
)

// keepFormat notes in the data folder of which format the state in it is, before anybody could put an older program in
// this one's place, until ctx ends. It fails where the state is of a format that this manager does not know, as it may
// find out only when it has read the raft log.
func (m *Manager) keepFormat(ctx context.Context) error {
	var recorded uint32
	for {
		feed := m.store.Changed()
		if cluster := m.store.Snapshot().Cluster(); cluster != nil {
			format := state.FormatOf(cluster)
			if known := dataformat.Manager(); format > known {
				return fmt.Errorf("the cluster's state is of format %d, and this manager knows formats up to %d: upgrade warren-manager", format, known)
			}
			if format != recorded {
				if err := dataformat.Record(m.options.DataDir, format); err != nil {
					return err
				}
				recorded = format
			}
		} else {
			recorded = 0 // it has left its cluster, and forgotten this as well
		}
		select {
		case <-feed:
		case <-ctx.Done():
			return nil
		}
	}
}
