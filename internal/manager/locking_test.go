package manager_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/cuemby/warren/internal/manager/keyring"
	"github.com/cuemby/warren/internal/unlockkey"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func (r *running) initLocked(t testing.TB) (key string) {
	t.Helper()
	res, err := r.cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{Spec: &warrenv1.ClusterSpec{Autolock: true}}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetUnlockKey()
}

func (r *running) unlock(ctx context.Context, key string) error {
	_, err := r.local.UnlockManager(ctx, connect.NewRequest(&warrenv1.UnlockManagerRequest{Key: key}))
	return err
}

// stood tells how a manager stands.
func (r *running) stood(t testing.TB) *warrenv1.GetManagerResponse {
	t.Helper()
	res, err := r.local.GetManager(t.Context(), connect.NewRequest(&warrenv1.GetManagerRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg
}

func (r *running) autolock(t testing.TB, on bool) {
	t.Helper()
	res, err := r.cluster.GetCluster(t.Context(), connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	spec := proto.CloneOf(res.Msg.GetCluster().GetSpec())
	spec.Autolock = on
	if _, err := r.cluster.UpdateCluster(t.Context(), connect.NewRequest(&warrenv1.UpdateClusterRequest{Spec: spec})); err != nil {
		t.Fatal(err)
	}
}

// opens tells whether a key, empty for none, opens a copy of a manager's files.
func opens(t testing.TB, dir, key string) error {
	t.Helper()
	copied := t.TempDir()
	for _, name := range []string{"cluster.key", "identity.pem"} {
		text, err := os.ReadFile(filepath.Join(dir, "data", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(copied, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := keyring.OpenFolder(copied)
	if err != nil || key == "" {
		if err == nil && ring.State() != keyring.Open {
			err = keyring.ErrLocked
		}
		return err
	}
	parsed, err := unlockkey.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	return ring.Unlock(parsed)
}

func TestALockedManagerWaitsForItsKeyAndGoesOnWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	key := r.initLocked(t)
	if _, err := r.services.CreateService(t.Context(), create("web", 1)); err != nil {
		t.Fatal(err)
	}
	before := r.stood(t)
	if err := opens(t, dir, key); err != nil {
		t.Errorf("the key does not open the files: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, _ := os.ReadFile(filepath.Join(dir, "data", e.Name())) // folders cannot be read so
		if bytes.Contains(text, []byte("BEGIN PRIVATE KEY")) || bytes.Contains(text, []byte("BEGIN WARREN CLUSTER KEY")) {
			t.Errorf("%s holds a key in the open", e.Name())
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = start(t, dir)
	if now := r.stood(t); now.GetState() != warrenv1.ManagerState_MANAGER_STATE_LOCKED || now.GetClusterId() != before.GetClusterId() ||
		now.GetId() != before.GetId() || !strings.Contains(now.GetProblem(), "warrenctl cluster unlock") {
		t.Errorf("it is %v", now)
	}
	_, err = r.services.ListServices(t.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "run `warrenctl cluster unlock`") {
		t.Errorf("a call: %v", err)
	}
	for _, protocol := range []string{"h2", "warren-raft/1"} {
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}}).DialContext(t.Context(), "tcp", r.manager.Addr().String())
		if err == nil {
			conn.Close()
			t.Errorf("it answers %s on TCP", protocol)
		}
	}
	if err := r.unlock(t.Context(), unlockkey.New().Text()); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a wrong key: %v", err)
	}
	if err := r.unlock(t.Context(), key); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("right after it: %v", err)
	}
	await(t, "unlock", func(ctx context.Context) error { return r.unlock(ctx, key) })
	res, err := r.services.GetService(t.Context(), connect.NewRequest(&warrenv1.GetServiceRequest{Ref: "web"}))
	if err != nil || res.Msg.GetEntry().GetService().GetSpec().GetName() != "web" {
		t.Errorf("%v, %v", res, err)
	}
	if err := r.unlock(t.Context(), key); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("unlocked again: %v", err)
	}

	r.autolock(t, false)
	await(t, "the files are open", func(context.Context) error { return opens(t, dir, "") })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir)
	if _, err := r.services.ListServices(t.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{})); err != nil {
		t.Errorf("without autolock: %v", err)
	}
}

func TestALockedManagerStopsWhenItIsTold(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	r.initLocked(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir)
	r.stood(t)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestEveryManagerFollowsTheUnlockKeyAndOneThatWasAwayOpensWithTheOldOne(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	var all []*running
	for i, dir := range dirs {
		r := start(t, dir)
		if i == 0 {
			r.init(t)
		} else {
			// The address is kept over restarts: where it is given to each start anew, others miss one that was away.
			if _, err := r.local.JoinManager(t.Context(), connect.NewRequest(&warrenv1.JoinManagerRequest{
				Token: all[0].token(t, warrenv1.Role_ROLE_MANAGER), Managers: []string{all[0].manager.Addr().String()},
				ListenAddr: r.manager.Addr().String(),
			})); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, r)
	}
	all[0].autolock(t, true)
	get := func(rotate bool) string {
		t.Helper()
		res, err := all[0].trust.GetUnlockKey(t.Context(), connect.NewRequest(&warrenv1.GetUnlockKeyRequest{Rotate: rotate}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.GetKey()
	}
	sealedWith := func(key string, dirs ...string) {
		t.Helper()
		for i, dir := range dirs {
			await(t, fmt.Sprintf("manager %d is sealed", i), func(context.Context) error { return opens(t, dir, key) })
		}
	}
	first := get(false)
	sealedWith(first, dirs...)
	if err := all[2].stop(); err != nil {
		t.Fatal(err)
	}
	second := get(true)
	sealedWith(second, dirs[:2]...)
	if err := opens(t, dirs[0], first); !errors.Is(err, keyring.ErrWrongKey) {
		t.Errorf("the old key: %v", err)
	}
	back := start(t, dirs[2])
	if err := back.unlock(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	sealedWith(second, dirs[2])
}

func TestALockedManagerWhoseKeyIsLostForgetsItsCluster(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	r.initLocked(t)
	before := r.stood(t).GetId()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir)
	leave := func(force bool) error {
		_, err := r.local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{Force: force}))
		return err
	}
	if err := leave(false); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "--force") {
		t.Errorf("without force: %v", err)
	}
	if err := leave(true); err != nil {
		t.Fatal(err)
	}
	if now := r.stood(t); now.GetState() != warrenv1.ManagerState_MANAGER_STATE_WAITING || now.GetId() == before {
		t.Errorf("it is %v", now)
	}
	r.init(t)
}
