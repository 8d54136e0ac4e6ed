package backup

import (
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/version"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Take writes a backup of a snapshot, with the key that opens what is sealed in it. The snapshot does not
// change, so writes go on meanwhile.
func Take(w io.Writer, s state.Snapshot, key authority.Key, now time.Time) error {
	cluster := s.Cluster()
	if cluster == nil || s.Authority() == nil {
		return errors.New("make a backup: there is no cluster")
	}
	return backupfile.Write(w, &statev1.BackupHeader{
		ClusterId: cluster.GetMeta().GetId(), ClusterName: cluster.GetSpec().GetName(),
		Version: version.Version, CreatedAt: timestamppb.New(now), Index: s.Index(), ClusterKey: key.Secret(),
	}, s)
}
