package metrics_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/loop"
	"github.com/cuemby/warren/internal/manager/metrics"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/metrics/metricstest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// rig is a manager's metrics with a state of their own.
type rig struct {
	t        testing.TB
	store    *state.Store
	proposer *statetest.Proposer
	*metrics.Metrics
	figures  consensus.Figures
	locked   bool
	expires  time.Time
	followed chan struct{}
}

func newRig(t testing.TB) *rig {
	store := state.NewStore()
	r := &rig{t: t, store: store, proposer: statetest.NewProposer(store), expires: time.Unix(1000, 0)}
	r.Metrics = metrics.New(metrics.Sources{
		Snapshot: store.Snapshot, Sessions: func() int { return 3 },
		Raft:               func() (consensus.Figures, bool) { return r.figures, !r.locked },
		CertificateExpires: func() time.Time { return r.expires },
	})
	return r
}
