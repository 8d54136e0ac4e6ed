package events_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// told returns the messages of what a change of the objects amounts to.
func told(t *testing.T, before, after state.Object, others ...state.Object) []string {
	t.Helper()
	store := statetest.New(t, others...)
	var messages []string
	for _, e := range events.From(store.Snapshot(), state.Change{Before: before, After: after}, statetest.Epoch) {
		messages = append(messages, e.GetAction()+": "+e.GetMessage())
		if !slices.Contains(events.Actions, e.GetAction()) {
			t.Errorf("%s is not among the actions", e.GetAction())
		}
	}
	return messages
}

func TestChangesAreToldInWords(t *testing.T) {
	task := func(edits ...func(*warrenv1.Task)) *warrenv1.Task {
		return statetest.Task("a", "web", 3, "n1", edits...)
	}
	state := func(s warrenv1.TaskState, err string) func(*warrenv1.Task) {
		return func(t *warrenv1.Task) { t.Status.State, t.Status.Error = s, err }
	}
	assigned := task(statetest.In(warrenv1.TaskState_TASK_STATE_ASSIGNED))
	scaled := statetest.Replicated("web", 5)
	relabelled := statetest.Replicated("web", 5, func(s *warrenv1.Service) { s.Spec.Labels = map[string]string{"a": "b"} })
	down := statetest.Node("n1", func(n *warrenv1.Node) {
		n.Status.State, n.Status.Message = warrenv1.NodeState_NODE_STATE_DOWN, "silent"
	})
	drained := statetest.Node("n1", func(n *warrenv1.Node) {
		n.Spec.Availability = warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN
	})
	unwanted := func(t *warrenv1.Task) { t.Desired = warrenv1.DesiredState_DESIRED_STATE_SHUTDOWN }
	manager := func(version, addr string) *statev1.Member {
		return &statev1.Member{Meta: &warrenv1.Meta{Id: "m1id"}, Hostname: "m1", Version: version, Addr: addr}
	}
	user := func(role warrenv1.Role) *warrenv1.User {
		return &warrenv1.User{Meta: &warrenv1.Meta{Id: "anna"}, Role: role}
	}
	authority := func(rotates bool) *statev1.Authority {
		a := &statev1.Authority{Meta: &warrenv1.Meta{Id: "authority"}}
		if rotates {
			a.RotationStartedAt = timestamppb.New(statetest.Epoch)
		}
		return a
	}
	for name, c := range map[string]struct {
		got  []string
		want []string
	}{
		"service created":    {told(t, nil, statetest.Replicated("web", 3)), []string{"created: service web created: image, 3 replicas"}},
		"global created":     {told(t, nil, statetest.Global("web")), []string{"created: service web created: image, on every node"}},
		"service scaled":     {told(t, statetest.Replicated("web", 3), scaled), []string{"scaled: service web scaled from 3 to 5"}},
		"service relabelled": {told(t, scaled, relabelled), []string{"updated: service web updated"}},
		"service updated":    {told(t, scaled, statetest.Replicated("web", 5, func(s *warrenv1.Service) { s.Revision = 2 })), []string{"updated: service web updated to revision 2"}},
		"service removing":   {told(t, scaled, statetest.Replicated("web", 5, func(s *warrenv1.Service) { s.Removing = true })), []string{"removing: service web is being removed"}},
		"service removed":    {told(t, scaled, nil), []string{"removed: service web removed"}},
		"service untouched":  {told(t, scaled, scaled), nil},
		"node joined":        {told(t, nil, statetest.Node("n1")), []string{"created: node n1 joined the cluster", "ready: node n1 is ready"}},
		"node down":          {told(t, statetest.Node("n1"), down), []string{"down: node n1 is down: silent"}},
		"node drained":       {told(t, statetest.Node("n1"), drained, task()), []string{"drained: node n1 is being drained of its tasks"}},
		"empty node drained": {told(t, statetest.Node("n1"), drained), []string{"drained: node n1 is being drained of its tasks", "drain-complete: node n1 is drained: it has no tasks"}},
		"node removed":       {told(t, down, nil), []string{"removed: node n1 removed"}},
		"cluster created":    {told(t, nil, statetest.Cluster()), []string{"created: cluster test created"}},
		"task created":       {told(t, nil, task(statetest.In(warrenv1.TaskState_TASK_STATE_PENDING))), []string{"created: task web.3 created"}},
		"task assigned":      {told(t, task(statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)), assigned, statetest.Node("n1")), []string{"assigned: task web.3 assigned to node n1"}},
		"task running":       {told(t, assigned, task()), []string{"running: task web.3 is running on node n1"}},
		"task failed":        {told(t, task(), task(state(warrenv1.TaskState_TASK_STATE_FAILED, "exit code 1"))), []string{"failed: task web.3 failed: exit code 1"}},
		"task lost":          {told(t, task(), task(state(warrenv1.TaskState_TASK_STATE_LOST, ""))), []string{"lost: task web.3 lost: node n1 is gone"}},
		"task restarted": {told(t, task(), task(state(warrenv1.TaskState_TASK_STATE_STARTING, "exit code 1"), func(t *warrenv1.Task) { t.Status.Attempt = 2 })),
			[]string{"restarted: task web.3 restarts, attempt 2: exit code 1"}},
		"task replaced": {told(t, nil, task(statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), func(t *warrenv1.Task) { t.Meta.CreatedAt = timestamppb.New(statetest.Epoch.Add(time.Minute)) }),
			statetest.Task("b", "web", 3, "n1", state(warrenv1.TaskState_TASK_STATE_FAILED, "exit code 1")), statetest.Node("n1")),
			[]string{"created: task web.3 created in place of the one on node n1, which failed"}},
		"task of a new revision": {told(t, nil, task(statetest.In(warrenv1.TaskState_TASK_STATE_PENDING), func(t *warrenv1.Task) {
			t.Revision, t.Meta.CreatedAt = 2, timestamppb.New(statetest.Epoch.Add(time.Minute))
		}), statetest.Task("b", "web", 3, "n1")), []string{"created: task web.3 created of revision 2, in place of one of 1"}},
		"task stops, its service is scaled": {told(t, task(), task(unwanted, state(warrenv1.TaskState_TASK_STATE_STOPPING, "exit code 1 of an earlier attempt")), statetest.Replicated("web", 2)),
			[]string{"stopping: task web.3 is stopping: its service is scaled to 2"}},
		"task stopped, its service is gone": {told(t, task(), task(unwanted, state(warrenv1.TaskState_TASK_STATE_SHUTDOWN, ""))),
			[]string{"shutdown: task web.3 was shut down: its service is removed"}},
		"task stops on a drained node": {told(t, task(), task(unwanted, state(warrenv1.TaskState_TASK_STATE_STOPPING, "")), statetest.Replicated("web", 3), drained),
			[]string{"stopping: task web.3 is stopping: its node is drained"}},
		"manager joined":     {told(t, nil, manager("v1", "a:1")), []string{"created: manager m1 joined the cluster"}},
		"manager upgraded":   {told(t, manager("v1", "a:1"), manager("v2", "b:1")), []string{"upgraded: manager m1 runs version v2, before v1", "readdressed: manager m1 is at b:1, before at a:1"}},
		"manager renewed":    {told(t, manager("v1", "a:1"), manager("v1", "a:1")), nil},
		"manager removed":    {told(t, manager("v1", "a:1"), nil), []string{"removed: manager m1 removed"}},
		"user admitted":      {told(t, nil, user(warrenv1.Role_ROLE_VIEWER)), []string{"created: user anna admitted as viewer"}},
		"user of other role": {told(t, user(warrenv1.Role_ROLE_VIEWER), user(warrenv1.Role_ROLE_ADMIN)), []string{"updated: user anna is admin now"}},
		"user removed":       {told(t, user(warrenv1.Role_ROLE_VIEWER), nil), []string{"removed: user anna removed"}},
		"CA replaced":        {told(t, authority(false), authority(true), statetest.Cluster()), []string{"ca-rotation-started: cluster test is given a new CA"}},
		"CA was replaced":    {told(t, authority(true), authority(false), statetest.Cluster()), []string{"ca-rotated: cluster test trusts its new CA alone"}},
		"task message":       {told(t, task(), task(func(t *warrenv1.Task) { t.Status.Message = "10 %" })), nil},
		"task forgotten":     {told(t, task(), nil), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
}

func TestWhoHasChangedSomethingIsToldOfEveryKind(t *testing.T) {
	network := &warrenv1.Network{Meta: &warrenv1.Meta{Id: "shop"}, Spec: &warrenv1.NetworkSpec{Name: "shop"}}
	removing := statetest.Replicated("web", 3, func(s *warrenv1.Service) { s.Removing = true })
	for name, c := range map[string]state.Change{
		"network created": {After: network},
		"network removed": {Before: network},
		"node removed":    {Before: statetest.Node("n1")},
		"cluster updated": {Before: statetest.Cluster(), After: statetest.Cluster()},
		"service removed": {Before: statetest.Replicated("web", 3), After: removing},
		"user removed":    {Before: &warrenv1.User{Meta: &warrenv1.Meta{Id: "anna"}}},
	} {
		c.By = "olga"
		for _, e := range events.From(statetest.New(t).Snapshot(), c, statetest.Epoch) {
			if e.GetBy() != "olga" {
				t.Errorf("%s: by %q", name, e.GetBy())
			}
		}
	}
}

func indexes(events []*warrenv1.Event) []uint64 {
	var all []uint64
	for _, e := range events {
		all = append(all, e.GetIndex())
	}
	return all
}

func event(index int) *warrenv1.Event {
	return &warrenv1.Event{Index: uint64(index), Time: timestamppb.New(statetest.Epoch.Add(time.Duration(index) * time.Second))}
}

func TestAReaderGetsWhatIsRememberedSinceThenAndWhatComes(t *testing.T) {
	log := events.NewLog()
	log.Append(event(1), event(2), event(3))
	fresh, since := log.Reader(time.Time{}), log.Reader(statetest.Epoch.Add(2*time.Second))
	log.Append(event(4))
	for name, c := range map[string]struct {
		reader *events.Reader
		want   []uint64
	}{"from now": {fresh, []uint64{4}}, "since": {since, []uint64{2, 3, 4}}} {
		got, err := c.reader.Take(100)
		if err != nil || !slices.Equal(indexes(got), c.want) {
			t.Errorf("%s: %v, %v", name, indexes(got), err)
		}
	}
}

func TestAReaderThatFallsTooFarBehindIsToldAndGoesOn(t *testing.T) {
	log := events.NewLog()
	log.Append(event(0))
	reader := log.Reader(statetest.Epoch)
	for i := range 10_000 {
		log.Append(event(i + 1))
	}
	if _, err := reader.Take(1); !errors.Is(err, events.ErrOverrun) {
		t.Fatalf("got %v", err)
	}
	got, err := reader.Take(100_000)
	if err != nil || len(got) != 10_000 || got[0].GetIndex() != 1 || got[9_999].GetIndex() != 10_000 {
		t.Errorf("got %d events, %v", len(got), err)
	}
}

// A manager that is started reads its log again, and tells of what was removed long ago.
func TestARemovalIsToldWithTheTimeAtWhichItWasDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := statetest.Replicated("web", 1)
		store := statetest.New(t, web)
		log := events.NewLog()
		_, feed := store.Watch()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- log.Run(ctx, feed) }()
		time.Sleep(time.Hour)
		statetest.Remove(t, store, state.KeyOf(web)) // decided at Epoch
		synctest.Wait()
		got := log.Remembered()
		if len(got) != 1 || got[0].GetAction() != "removed" || !got[0].GetTime().AsTime().Equal(statetest.Epoch) {
			t.Errorf("got %v", got)
		}
		cancel()
		<-ended
	})
}

func TestALogKnowsHowFarBackItGoes(t *testing.T) {
	log := events.NewLog()
	log.Append(event(0))
	if since := log.Since(); !since.IsZero() {
		t.Errorf("with nothing forgotten it goes back to %v", since)
	}
	for i := range 10_000 {
		log.Append(event(i + 1))
	}
	if since := log.Since(); !since.Equal(statetest.Epoch.Add(time.Second)) {
		t.Errorf("with one forgotten it goes back to %v", since)
	}
}

func TestALogThatBeginsWithASnapshotSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := statetest.New(t, statetest.Cluster())
		var saved bytes.Buffer
		if err := full.Snapshot().Save(&saved); err != nil {
			t.Fatal(err)
		}
		store, log := state.NewStore(), events.NewLog()
		_, feed := store.Watch()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- log.Run(ctx, feed) }()
		if err := store.Load(&saved); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if since := log.Since(); !since.Equal(time.Now()) {
			t.Errorf("it goes back to %v, and it is %v", since, time.Now())
		}
		// What the raft log has beyond the snapshot happened before the start.
		before := timestamppb.New(time.Now().Add(-time.Minute))
		log.Append(&warrenv1.Event{Time: before})
		if since := log.Since(); !since.Equal(before.AsTime()) {
			t.Errorf("it goes back to %v", since)
		}
		cancel()
		<-ended
	})
}

func TestALogFollowsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t)
		log := events.NewLog()
		_, feed := store.Watch()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- log.Run(ctx, feed) }()
		reader := log.Reader(time.Time{})
		waited := make(chan error)
		go func() { waited <- reader.Wait(ctx) }()
		synctest.Wait()
		statetest.Put(t, store, statetest.Replicated("web", 1))
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		got, err := reader.Take(10)
		if err != nil || len(got) != 1 || got[0].GetObjectName() != "web" || got[0].GetIndex() != store.Snapshot().Index() {
			t.Errorf("got %v, %v", got, err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}
