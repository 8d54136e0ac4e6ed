package manager

import (
	"context"
	"fmt"

	"github.com/cuemby/warren/internal/dataformat"
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// keepFormat notes in the data folder of which format the state in it is, before anybody could put an older program in
// this one's place, until ctx ends. It fails where the state is of a format that this manager does not know, as it may
// find out only when it has read the raft log.
func (m *Manager) keepFormat(ctx context.Context) error {
	// What is recorded is what this says. One that has left its cluster has forgotten the file as well; in the next cluster, and in
	// the same restored, it is another object, whether or not the moment without any was seen.
	var recorded *warrenv1.Cluster
	for {
		feed := m.store.Changed()
		if cluster := m.store.Snapshot().Cluster(); cluster != nil && cluster != recorded {
			format := state.FormatOf(cluster)
			if known := dataformat.Manager(); format > known {
				return fmt.Errorf("the cluster's state is of format %d, and this manager knows formats up to %d: upgrade warren-manager", format, known)
			}
			if err := dataformat.Record(m.options.DataDir, format); err != nil {
				return err
			}
			recorded = cluster
		}
		select {
		case <-feed:
		case <-ctx.Done():
			return nil
		}
	}
}
