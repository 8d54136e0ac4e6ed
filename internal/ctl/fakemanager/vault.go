package fakemanager

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/backupfile"
	"github.com/cuemby/warren/internal/unlockkey"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// Lock has the manager be as after a restart, with autolock.
func (m *Manager) Lock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locked = true
}

// autolock draws a key for a cluster that has autolock since now, and forgets that of one that has it no
// more.
func (m *Manager) autolock() {
	var none unlockkey.Key
	switch on := m.cluster.GetSpec().GetAutolock(); {
	case !on:
		m.unlockKey = none
	case m.unlockKey.Equal(none):
		m.unlockKey = unlockkey.New()
	}
}

func (h trustService) GetUnlockKey(_ context.Context, req *connect.Request[warrenv1.GetUnlockKeyRequest]) (*connect.Response[warrenv1.GetUnlockKeyResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	if !h.m.cluster.GetSpec().GetAutolock() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the cluster has no autolock: `warrenctl cluster update --autolock=true` turns it on"))
	}
	if req.Msg.GetRotate() {
		h.m.unlockKey = unlockkey.New()
	}
	return connect.NewResponse(&warrenv1.GetUnlockKeyResponse{Key: h.m.unlockKey.Text()}), nil
}

type managerService struct {
	warrenv1connect.UnimplementedManagerServiceHandler
	m *Manager
}

func (h managerService) GetManager(context.Context, *connect.Request[warrenv1.GetManagerRequest]) (*connect.Response[warrenv1.GetManagerResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	res := &warrenv1.GetManagerResponse{Id: "m1", Version: "1.2.3", State: warrenv1.ManagerState_MANAGER_STATE_WAITING, ClusterId: h.m.cluster.GetMeta().GetId()}
	switch {
	case h.m.locked:
		res.State = warrenv1.ManagerState_MANAGER_STATE_LOCKED
	case h.m.cluster != nil:
		res.State = warrenv1.ManagerState_MANAGER_STATE_LEADING
	}
	return connect.NewResponse(res), nil
}

func (h managerService) UnlockManager(_ context.Context, req *connect.Request[warrenv1.UnlockManagerRequest]) (*connect.Response[warrenv1.UnlockManagerResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	key, err := unlockkey.Parse(req.Msg.GetKey())
	switch {
	case err != nil:
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case !h.m.locked:
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("this manager is not locked"))
	case !key.Equal(h.m.unlockKey):
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("the unlock key is wrong"))
	}
	h.m.locked = false
	return connect.NewResponse(&warrenv1.UnlockManagerResponse{}), nil
}

func (h managerService) RecoverManager(_ context.Context, req *connect.Request[warrenv1.RecoverManagerRequest]) (*connect.Response[warrenv1.RecoverManagerResponse], error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return nil, err
	}
	if !req.Msg.GetForce() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("other managers can be reached: give --force to recover all the same"))
	}
	return connect.NewResponse(&warrenv1.RecoverManagerResponse{}), nil
}

func (h managerService) RestoreManager(_ context.Context, stream *connect.ClientStream[warrenv1.RestoreManagerRequest]) (*connect.Response[warrenv1.RestoreManagerResponse], error) {
	if !stream.Receive() || stream.Msg().GetOptions() == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must hold the options"))
	}
	h.m.mu.Lock()
	taken := h.m.cluster != nil && !stream.Msg().GetOptions().GetForce()
	h.m.mu.Unlock()
	if taken {
		return nil, connect.NewError(connect.CodeAlreadyExists, errors.New("this manager already belongs to a cluster: give --force to replace it"))
	}
	read, write := io.Pipe()
	go func() {
		var err error
		for err == nil && stream.Receive() {
			_, err = write.Write(stream.Msg().GetPiece())
		}
		write.CloseWithError(stream.Err()) // nil is the end
	}()
	contents, err := backupfile.Check(read)
	if err != nil {
		read.CloseWithError(err)
		return nil, connect.NewError(connect.CodeDataLoss, fmt.Errorf("check the backup: %w", err))
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.m.cluster = &warrenv1.Cluster{Meta: h.m.meta("cluster"), Spec: &warrenv1.ClusterSpec{Name: contents.Header.GetClusterName()}}
	h.m.cluster.Meta.Id = contents.Header.GetClusterId()
	return connect.NewResponse(&warrenv1.RestoreManagerResponse{ClusterId: contents.Header.GetClusterId(), ClusterName: contents.Header.GetClusterName()}), nil
}

func (h clusterService) BackupCluster(_ context.Context, _ *connect.Request[warrenv1.BackupClusterRequest], stream *connect.ServerStream[warrenv1.BackupClusterResponse]) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.initialised(); err != nil {
		return err
	}
	header := &statev1.BackupHeader{
		ClusterId: h.m.cluster.GetMeta().GetId(), ClusterName: h.m.cluster.GetSpec().GetName(), Version: "1.2.3",
		CreatedAt: timestamppb.Now(), Index: h.m.index, ClusterKey: make([]byte, 32),
	}
	return backupfile.Write(sender{stream}, header, saved{h.m})
}

// sender sends what is written to it.
type sender struct {
	stream *connect.ServerStream[warrenv1.BackupClusterResponse]
}

func (s sender) Write(b []byte) (int, error) {
	return len(b), s.stream.Send(&warrenv1.BackupClusterResponse{Piece: b})
}

// saved is what the manager holds, in the form of a raft snapshot.
type saved struct{ m *Manager }

func (s saved) Save(w io.Writer) error {
	objects := []*statev1.Object{{Kind: &statev1.Object_Cluster{Cluster: s.m.cluster}}}
	for _, n := range s.m.nodes {
		objects = append(objects, &statev1.Object{Kind: &statev1.Object_Node{Node: n}})
	}
	for _, svc := range s.m.services {
		objects = append(objects, &statev1.Object{Kind: &statev1.Object_Service{Service: svc}})
	}
	for _, t := range s.m.tasks {
		objects = append(objects, &statev1.Object{Kind: &statev1.Object_Task{Task: t}})
	}
	messages := []proto.Message{&statev1.SnapshotHeader{Format: 1, Index: s.m.index, Objects: uint64(len(objects))}}
	for _, o := range objects {
		messages = append(messages, o)
	}
	for _, m := range messages {
		if _, err := protodelim.MarshalTo(w, m); err != nil {
			return err
		}
	}
	return nil
}
