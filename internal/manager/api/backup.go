package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/manager/backup"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// pieceBytes is how much of a backup one message carries.
const pieceBytes = 256 << 10

// BackupCluster implements warrenv1connect.ClusterServiceHandler. Writes go on meanwhile.
func (h *clusterService) BackupCluster(ctx context.Context, _ *connect.Request[warrenv1.BackupClusterRequest], stream *connect.ServerStream[warrenv1.BackupClusterResponse]) error {
	key, ok := h.authority.ClusterKey()
	if !ok {
		return errors.New("make a backup: this manager does not hold the cluster's key")
	}
	out := bufio.NewWriterSize(pieces{ctx, stream}, pieceBytes)
	if err := backup.Take(out, h.store.Snapshot(), key, time.Now()); err != nil {
		return err
	}
	return out.Flush()
}

// pieces sends what is written to it.
type pieces struct {
	ctx    context.Context
	stream *connect.ServerStream[warrenv1.BackupClusterResponse]
}

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		if err := p.ctx.Err(); err != nil {
			return sent, err
		}
		piece := b[sent:min(len(b), sent+pieceBytes)]
		if err := p.stream.Send(&warrenv1.BackupClusterResponse{Piece: piece}); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return sent, nil
}

// Restorer is a manager that can become the only one of the cluster of a backup.
type Restorer interface {
	// Admit tells whether the manager takes a backup, before any of it is sent, and as which manager (its
	// id) and in which folder, the data folder, it is to be got ready. It fails with
	// consensus.ErrInitialized where the manager is in a cluster and the options do not force it.
	Admit(ctx context.Context, o *warrenv1.RestoreOptions) (self, folder string, err error)
	// Restore makes the manager the only one of the backup's cluster. The keys of a cluster that it was in
	// must be forgotten first (keyring.Ring.Forget), also if it is the same cluster: what they are sealed
	// with is that of a later state.
	Restore(ctx context.Context, o *warrenv1.RestoreOptions, r *backup.Restoration) error
}

// restoreManager is RestoreManager for that manager. Nothing of it changes before the backup is here,
// checked and got ready.
func restoreManager(ctx context.Context, stream *connect.ClientStream[warrenv1.RestoreManagerRequest], to Restorer) (*connect.Response[warrenv1.RestoreManagerResponse], error) {
	if !stream.Receive() {
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, problemf(connect.CodeInvalidArgument, "restore: nothing was sent")
	}
	o := stream.Msg().GetOptions()
	if o == nil {
		return nil, problemf(connect.CodeInvalidArgument, "restore: the first message must hold the options")
	}
	self, folder, err := to.Admit(ctx, o)
	if err != nil {
		return nil, err
	}
	r, err := backup.Receive(folder, &received{stream: stream}, self, time.Now())
	if err != nil {
		return nil, tellRestore(err)
	}
	defer r.Close()
	if err := to.Restore(ctx, o, r); err != nil {
		return nil, err
	}
	return connect.NewResponse(&warrenv1.RestoreManagerResponse{ClusterId: r.Header.GetClusterId(), ClusterName: r.Header.GetClusterName()}), nil
}

// tellRestore gives what is wrong with a backup its code.
func tellRestore(err error) error {
	switch {
	case errors.Is(err, backupfile.ErrNewer):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, backupfile.ErrNotBackup):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, backupfile.ErrTruncated), errors.Is(err, backupfile.ErrAltered):
		return connect.NewError(connect.CodeDataLoss, err)
	}
	return err
}

// received reads the pieces of a stream.
type received struct {
	stream *connect.ClientStream[warrenv1.RestoreManagerRequest]
	piece  []byte
}

// Read implements io.Reader.
func (r *received) Read(b []byte) (int, error) {
	for len(r.piece) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil {
				return 0, fmt.Errorf("receive: %w", err)
			}
			return 0, io.EOF
		}
		if r.stream.Msg().GetOptions() != nil {
			return 0, problemf(connect.CodeInvalidArgument, "restore: only the first message may hold options")
		}
		r.piece = r.stream.Msg().GetPiece()
	}
	n := copy(b, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}
