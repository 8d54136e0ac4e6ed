package manager_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/backupfile"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func (r *running) backup(t testing.TB) []byte {
	t.Helper()
	stream, err := r.cluster.BackupCluster(t.Context(), connect.NewRequest(&warrenv1.BackupClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var file bytes.Buffer
	for stream.Receive() {
		file.Write(stream.Msg().GetPiece())
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func (r *running) restore(ctx context.Context, file []byte, o *warrenv1.RestoreOptions) error {
	stream := r.local.RestoreManager(ctx)
	_ = stream.Send(&warrenv1.RestoreManagerRequest{Message: &warrenv1.RestoreManagerRequest_Options{Options: o}})
	for piece := range slices.Chunk(file, 64<<10) {
		_ = stream.Send(&warrenv1.RestoreManagerRequest{Message: &warrenv1.RestoreManagerRequest_Piece{Piece: piece}})
	}
	_, err := stream.CloseAndReceive()
	return err
}

func (r *running) names(t testing.TB) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	token := ""
	for {
		res, err := r.services.ListServices(t.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range res.Msg.GetServices() {
			names[e.GetService().GetSpec().GetName()] = true
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			return names
		}
	}
}

// TestABackupTakenUnderWritesRestoresOneMoment has one caller write a, b, c… in order and a backup be taken
// meanwhile: what is restored is a beginning of that order.
func TestABackupTakenUnderWritesRestoresOneMoment(t *testing.T) {
	first := start(t, t.TempDir())
	first.init(t)
	other := start(t, t.TempDir())
	other.join(t, first)
	ctx, cancel := context.WithCancel(t.Context())
	under := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if _, err := first.services.CreateService(ctx, create(fmt.Sprintf("web-%06d", n), 1)); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			if n == 50 {
				close(under)
			}
		}
	})
	<-under
	file := other.backup(t) // which the leader answers, through the other
	cancel()
	writing.Wait()
	contents, err := backupfile.Check(bytes.NewReader(file))
	if err != nil || contents.Services < 50 {
		t.Fatalf("%+v, %v", contents, err)
	}
	before := first.stood(t)

	dir := t.TempDir()
	r := start(t, dir)
	if err := r.restore(t.Context(), file[:len(file)-1], &warrenv1.RestoreOptions{}); connect.CodeOf(err) != connect.CodeDataLoss {
		t.Errorf("a part of it: %v", err)
	}
	if now := r.stood(t); now.GetState() != warrenv1.ManagerState_MANAGER_STATE_WAITING {
		t.Errorf("it is %v", now)
	}
	if err := r.restore(t.Context(), file, &warrenv1.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if now := r.stood(t); now.GetState() != warrenv1.ManagerState_MANAGER_STATE_LEADING || now.GetClusterId() != before.GetClusterId() || now.GetId() == before.GetId() {
		t.Errorf("it is %v", now)
	}
	names := r.names(t)
	if len(names) != contents.Services {
		t.Errorf("%d services are there, %d were saved", len(names), contents.Services)
	}
	for n := range len(names) {
		if name := fmt.Sprintf("web-%06d", n); !names[name] {
			t.Fatalf("%s is missing although later ones are there", name)
		}
	}
	members, err := r.members(t.Context())
	if err != nil || len(members) != 1 || members[0].GetId() == before.GetId() {
		t.Errorf("managers are %v, %v", members, err)
	}
	res, err := r.services.CreateService(t.Context(), create("after", 1))
	if err != nil || res.Msg.GetService().GetMeta().GetVersion() <= contents.Header.GetIndex() {
		t.Errorf("a write: %v, %v", res, err)
	}
	r.takesAnother(t)

	// What is there is replaced by force alone, and survives a restart.
	if err := r.restore(t.Context(), file, &warrenv1.RestoreOptions{}); connect.CodeOf(err) != connect.CodeAlreadyExists || !strings.Contains(err.Error(), "--force") {
		t.Errorf("once more: %v", err)
	}
	if err := first.restore(t.Context(), file, &warrenv1.RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if now := first.stood(t); now.GetId() == before.GetId() || now.GetState() != warrenv1.ManagerState_MANAGER_STATE_LEADING {
		t.Errorf("it is %v", now)
	}
	if got := first.names(t); len(got) != contents.Services {
		t.Errorf("%d services are there, %d were saved", len(got), contents.Services)
	}
	left, err := filepath.Glob(filepath.Join(dir, "data", ".restore-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// takesAnother has another manager join a restored one, which takes a certificate of its own.
func (r *running) takesAnother(t *testing.T) {
	t.Helper()
	next := start(t, t.TempDir())
	next.join(t, r)
	await(t, "two managers", func(ctx context.Context) error {
		members, err := r.members(ctx)
		if err == nil && len(members) != 2 {
			err = fmt.Errorf("there are %d", len(members))
		}
		return err
	})
}

func TestARestoredClusterWithAutolockIsSealedWithTheBackupsKey(t *testing.T) {
	r := start(t, t.TempDir())
	key := r.initLocked(t)
	file := r.backup(t)
	dir := t.TempDir()
	restored := start(t, dir)
	if err := restored.restore(t.Context(), file, &warrenv1.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := opens(t, dir, key); err != nil {
		t.Errorf("the key of the backup: %v", err)
	}
	if err := restored.stop(); err != nil {
		t.Fatal(err)
	}
	restored = start(t, dir)
	if err := restored.unlock(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if got := restored.stood(t); got.GetClusterId() == "" {
		t.Errorf("it is %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "manager.key")); !os.IsNotExist(err) {
		t.Errorf("the private key is in two places: %v", err)
	}
}
