package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/api"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/events"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// member is a manager's part in the cluster that leads, unless it is told otherwise.
type member struct {
	ready error
	learn func() // what was committed before it was elected, which it then knows; nil for nothing
}

func (m *member) Ready(context.Context) error {
	if m.learn != nil {
		m.learn()
	}
	return m.ready
}

func (m *member) Initialize(_ context.Context, spec *warrenv1.ClusterSpec, _ api.Addresses) (*warrenv1.Cluster, error) {
	return &warrenv1.Cluster{Meta: &warrenv1.Meta{Id: "c"}, Spec: spec}, nil
}

func (m *member) Knows() error { return nil }

func (m *member) Enlist(context.Context, *statev1.Member) (uint64, error) { return 0, nil }

func (m *member) Promote(context.Context, string) error { return nil }

func (m *member) Announce(context.Context, *statev1.Member) error { return nil }

func (m *member) Expel(_ context.Context, ref string, _, _ bool) (string, error) { return ref, nil }

func (m *member) Managers() ([]*warrenv1.Manager, error) {
	return []*warrenv1.Manager{{Id: "m1", Leader: true}}, nil
}

func (m *member) AgentAddr() string { return "127.0.0.1:7420" }

func (m *member) Addrs() []string { return []string{"127.0.0.1:7420"} }

// proposer is the real one with something to happen before a proposal.
type proposer struct {
	*statetest.Proposer
	before func()
}

func (p *proposer) Propose(ctx context.Context, transactions ...*state.Transaction) ([]error, error) {
	if f := p.before; f != nil {
		p.before = nil
		f()
	}
	return p.Proposer.Propose(ctx, transactions...)
}

// served is the API over a store, with clients.
type served struct {
	t        *testing.T
	store    *state.Store
	proposer *proposer
	member   *member
	caller   caller.Caller // who makes every call
	events   *events.Log
	ca       *authority.Authority
	close    context.CancelFunc
	url      string
	http     *httptest.Server

	clusters warrenv1connect.ClusterServiceClient
	nodes    warrenv1connect.NodeServiceClient
	networks warrenv1connect.NetworkServiceClient
	services warrenv1connect.ServiceServiceClient
	tasks    warrenv1connect.TaskServiceClient
	watch    warrenv1connect.EventServiceClient
	explain  warrenv1connect.ExplainServiceClient
}

func serve(t *testing.T, objects ...state.Object) *served {
	t.Helper()
	store := statetest.New(t, append(objects, statetest.Cluster())...)
	s := &served{t: t, store: store, proposer: &proposer{Proposer: statetest.NewProposer(store)}, member: &member{}, events: events.NewLog()}
	s.caller = caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true}
	s.ca = authority.New(store, s.proposer)
	closing, cancel := context.WithCancel(context.Background())
	s.close = cancel
	handler, err := api.New(api.Options{
		Store: store, Proposer: s.proposer, Membership: s.member, Events: s.events,
		Authority: s.ca,
		Sessions:  warrenv1connect.UnimplementedSessionServiceHandler{},
		Logs:      warrenv1connect.UnimplementedLogServiceHandler{},
		Closing:   closing,
		Logger:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(caller.With(r.Context(), s.caller)))
	}))
	s.http.EnableHTTP2 = true
	s.http.StartTLS()
	t.Cleanup(func() {
		cancel()
		s.http.Close()
	})
	client := s.http.Client()
	s.url = s.http.URL
	s.clusters = warrenv1connect.NewClusterServiceClient(client, s.url)
	s.nodes = warrenv1connect.NewNodeServiceClient(client, s.url)
	s.networks = warrenv1connect.NewNetworkServiceClient(client, s.url)
	s.services = warrenv1connect.NewServiceServiceClient(client, s.url)
	s.tasks = warrenv1connect.NewTaskServiceClient(client, s.url)
	s.watch = warrenv1connect.NewEventServiceClient(client, s.url)
	s.explain = warrenv1connect.NewExplainServiceClient(client, s.url)
	return s
}

// call makes a unary call.
func call[Q, R any](s *served, f func(context.Context, *connect.Request[Q]) (*connect.Response[R], error), req *Q) (*R, error) {
	s.t.Helper()
	res, err := f(s.t.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// must makes a unary call that has to succeed.
func must[Q, R any](s *served, f func(context.Context, *connect.Request[Q]) (*connect.Response[R], error), req *Q) *R {
	s.t.Helper()
	res, err := call(s, f, req)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// refused checks that a call was refused with a code, and that all of those words are in what it says.
func refused(t *testing.T, err error, code connect.Code, words ...string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil {
		t.Fatalf("got %v, want %v", err, code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func spec(name string, edits ...func(*warrenv1.ServiceSpec)) *warrenv1.ServiceSpec {
	spec := &warrenv1.ServiceSpec{
		Name: name,
		Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 2}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "nginx:1.27"}},
	}
	for _, edit := range edits {
		edit(spec)
	}
	return spec
}

func TestACreatedServiceIsStoredWithItsFirstRevision(t *testing.T) {
	s := serve(t)
	res := must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")})
	got := res.GetService()
	if got.GetMeta().GetVersion() == 0 || got.GetRevision() != 1 || !proto.Equal(got.GetSpec(), spec("web")) {
		t.Errorf("answered %v", got)
	}
	kept := s.store.Snapshot().Revision(got.GetMeta().GetId(), 1)
	if !proto.Equal(kept.GetTask(), got.GetSpec().GetTask()) {
		t.Errorf("revision %v", kept)
	}
}

func TestANameIsTakenUntilItsServiceIsGone(t *testing.T) {
	s := serve(t, statetest.Replicated("web", 1), statetest.Replicated("old", 1, func(s *warrenv1.Service) { s.Removing = true }))
	_, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")})
	refused(t, err, connect.CodeAlreadyExists, "service web already exists", "warrenctl service update web")
	_, err = call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("old")})
	refused(t, err, connect.CodeFailedPrecondition, "still being removed", "wait")
}

func TestOfTwoWhoCreateOneNameAtOnceTheSecondIsTold(t *testing.T) {
	s := serve(t)
	s.proposer.before = func() { statetest.Put(t, s.store, statetest.Replicated("web", 1)) }
	_, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")})
	refused(t, err, connect.CodeAlreadyExists)
}

func TestBadSpecsAreRefusedWithTheFieldAndTheRemedy(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		name  string
		edit  func(*warrenv1.ServiceSpec)
		field string
		words string
	}{
		{"name", func(s *warrenv1.ServiceSpec) { s.Name = "We b" }, "spec.name", "DNS label"},
		{"no mode", func(s *warrenv1.ServiceSpec) { s.Mode = nil }, "spec.mode", "required"},
		{"no image", func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "" }, "spec.task.container.image", "must not be empty"},
		{"image with capitals", func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "Nginx" }, "spec.task.container.image", `write "nginx"`},
		{"more reserved than allowed", func(s *warrenv1.ServiceSpec) {
			s.Task.Limits = &warrenv1.Resources{MemoryBytes: 32 << 20}
			s.Task.Reservations = &warrenv1.Resources{MemoryBytes: 64 << 20}
		}, "spec.task.reservations.memory_bytes", "raise the limit or reserve less"},
		{"image with a scheme", func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "https://r.example/a" }, "spec.task.container.image", `write "r.example/a"`},
		{"image that is none", func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "a b" }, "spec.task.container.image", "NAME[:TAG]"},
		{"constraint", func(s *warrenv1.ServiceSpec) {
			s.Placement = &warrenv1.Placement{Constraints: []string{"node.id==a", "node.label.x==1"}}
		}, "spec.placement.constraints[1]", "node.labels.x"},
		{"empty group", func(s *warrenv1.ServiceSpec) { s.Task.Container.Groups = []string{"audio", ""} }, "spec.task.container.groups[1]", "must not be empty"},
		{"relative workdir", func(s *warrenv1.ServiceSpec) { s.Task.Container.Workdir = "srv" }, "spec.task.container.workdir", "absolute path"},
		{"zero byte", func(s *warrenv1.ServiceSpec) { s.Task.Container.Args = []string{"a", "b\x00c"} }, "spec.task.container.args[1]", "zero byte"},
		{"hostname of two lines", func(s *warrenv1.ServiceSpec) { s.Task.Container.Hostname = "web\n10.0.0.1 bank" }, "spec.task.container.hostname", "letters, digits"},
		{"hostname with an unknown template", func(s *warrenv1.ServiceSpec) { s.Task.Container.Hostname = "{{.Slot}}" }, "spec.task.container.hostname", "{{.Task.Slot}}"},
		{"two mounts at one place", func(s *warrenv1.ServiceSpec) {
			s.Task.Container.Mounts = []*warrenv1.Mount{
				{Type: warrenv1.MountType_MOUNT_TYPE_TMPFS, Target: "/a"}, {Type: warrenv1.MountType_MOUNT_TYPE_TMPFS, Target: "/b/../a/"},
			}
		}, "spec.task.container.mounts[1].target", "two mounts have the target /a"},
		{"mount over the root", func(s *warrenv1.ServiceSpec) {
			s.Task.Container.Mounts = []*warrenv1.Mount{{Type: warrenv1.MountType_MOUNT_TYPE_TMPFS, Target: "/.."}}
		}, "spec.task.container.mounts[0].target", "below /"},
		{"ulimit upside down", func(s *warrenv1.ServiceSpec) {
			s.Task.Container.Ulimits = []*warrenv1.Ulimit{{Name: "nofile", Soft: -1, Hard: 1024}}
		}, "spec.task.container.ulimits[0].soft", "above the hard limit"},
		{"ulimit twice", func(s *warrenv1.ServiceSpec) {
			s.Task.Container.Ulimits = []*warrenv1.Ulimit{{Name: "core", Soft: 1, Hard: 1}, {Name: "core", Soft: 2, Hard: -1}}
		}, "spec.task.container.ulimits[1].name", "given twice"},
		{"template in env", func(s *warrenv1.ServiceSpec) { s.Task.Container.Env = []string{"A={{.Task.Name}}"} }, "spec.task.container.env[0]", "{{.Task.Slot}}"},
		{"template in a mount", func(s *warrenv1.ServiceSpec) {
			s.Task.Container.Mounts = []*warrenv1.Mount{{Type: warrenv1.MountType_MOUNT_TYPE_BIND, Source: "/{{.Node.Name}}", Target: "/data"}}
		}, "spec.task.container.mounts[0].source", "{{.Node.Hostname}}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web", c.edit)})
			refused(t, err, connect.CodeInvalidArgument, c.field+": ", c.words)
			var ce *connect.Error
			errors.As(err, &ce)
			var fields []string
			for _, d := range ce.Details() {
				if v, err := d.Value(); err == nil {
					for _, violation := range v.(*validate.Violations).GetViolations() {
						fields = append(fields, protovalidate.FieldPathString(violation.GetField()))
					}
				}
			}
			if !slices.Equal(fields, []string{c.field}) {
				t.Errorf("violations of %v", fields)
			}
		})
	}
	for range s.store.Snapshot().Services() {
		t.Error("a refused service was stored")
	}
}

func TestAConstraintNoNodeMeetsIsAWarning(t *testing.T) {
	s := serve(t, statetest.Node("n1"))
	create := func(name string, p *warrenv1.Placement) []string {
		return must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec(name, func(s *warrenv1.ServiceSpec) { s.Placement = p })}).GetWarnings()
	}
	if got := create("fits", &warrenv1.Placement{Constraints: []string{"node.hostname==n1"}}); len(got) > 0 {
		t.Errorf("warned: %q", got)
	}
	got := create("fits-not", &warrenv1.Placement{Constraints: []string{"node.hostname==n2", "node.id==n1"}, Platforms: []string{"linux/arm64"}})
	if len(got) != 2 || !strings.Contains(got[0], "node.hostname==n2") || !strings.Contains(got[1], "linux/arm64") {
		t.Errorf("warned: %q", got)
	}
}

func TestOnlyAChangeOfTheTemplateMakesARevision(t *testing.T) {
	s := serve(t)
	created := must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")}).GetService()
	update := func(edit func(*warrenv1.ServiceSpec)) *warrenv1.Service {
		return must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: spec("web", edit)}).GetService()
	}
	same := update(func(*warrenv1.ServiceSpec) {})
	if same.GetMeta().GetVersion() != created.GetMeta().GetVersion() {
		t.Errorf("an equal spec was written")
	}
	labelled := update(func(s *warrenv1.ServiceSpec) { s.Labels = map[string]string{"a": "b"} })
	if labelled.GetRevision() != 1 || labelled.GetMeta().GetVersion() == created.GetMeta().GetVersion() {
		t.Errorf("labels: revision %d, version %d", labelled.GetRevision(), labelled.GetMeta().GetVersion())
	}
	changed := update(func(s *warrenv1.ServiceSpec) { s.Task.Container.Image = "nginx:1.28" })
	if kept := s.store.Snapshot().Revision(changed.GetMeta().GetId(), 2); changed.GetRevision() != 2 || kept.GetTask().GetContainer().GetImage() != "nginx:1.28" {
		t.Errorf("image: revision %d, kept %v", changed.GetRevision(), kept)
	}
	scaled := must(s, s.services.ScaleService, &warrenv1.ScaleServiceRequest{Ref: "web", Replicas: 7}).GetService()
	if scaled.GetRevision() != 2 || scaled.GetSpec().GetReplicated().GetReplicas() != 7 {
		t.Errorf("scaled: %v", scaled)
	}
}

func TestWhatCannotBeChangedIsSaid(t *testing.T) {
	s := serve(t, statetest.Replicated("web", 1), statetest.Global("agent"), statetest.Replicated("old", 1, func(s *warrenv1.Service) { s.Removing = true }))
	_, err := call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: spec("webs")})
	refused(t, err, connect.CodeInvalidArgument, "spec.name: ", "cannot be changed")
	_, err = call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "agent", Spec: spec("agent")})
	refused(t, err, connect.CodeInvalidArgument, "spec.mode: ", "remove it")
	_, err = call(s, s.services.ScaleService, &warrenv1.ScaleServiceRequest{Ref: "agent", Replicas: 2})
	refused(t, err, connect.CodeFailedPrecondition, "global")
	_, err = call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "old", Spec: spec("old")})
	refused(t, err, connect.CodeFailedPrecondition, "being removed")
}

func TestAnUpdateOfAVersionReadFailsWhenTheServiceHasChanged(t *testing.T) {
	s := serve(t)
	read := must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")}).GetService().GetMeta().GetVersion()
	// The change comes between the handler's look and its write.
	s.proposer.before = func() {
		transaction := state.New(time.Now())
		state.Update(transaction, s.store.Snapshot().ServiceByName("web"), func(s *warrenv1.Service) { s.Spec.Labels = map[string]string{"a": "b"} })
		statetest.Commit(t, s.proposer.Proposer, transaction)
	}
	_, err := call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{
		Ref: "web", Version: read, Spec: spec("web", func(s *warrenv1.ServiceSpec) { s.Task.Force = 1 }),
	})
	now := s.store.Snapshot().ServiceByName("web").GetMeta().GetVersion()
	refused(t, err, connect.CodeAborted, fmt.Sprintf("changed since version %d (now %d): read it again", read, now))
}

func TestWhatAServiceIsGivenIsNoChangeToWhoHasReadIt(t *testing.T) {
	s := serve(t)
	created := must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web")}).GetService().GetMeta().GetVersion()
	address := func() {
		transaction := state.New(time.Now())
		state.Update(transaction, s.store.Snapshot().ServiceByName("web"), func(s *warrenv1.Service) {
			s.Endpoint = &warrenv1.ServiceEndpoint{Vip: "10.224.0.1"}
			s.WrittenAt = max(s.GetWrittenAt(), created)
		})
		statetest.Commit(t, s.proposer.Proposer, transaction)
	}
	address()
	address()
	labelled := func(label string) *warrenv1.ServiceSpec {
		return spec("web", func(s *warrenv1.ServiceSpec) { s.Labels = map[string]string{"is": label} })
	}
	updated := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Version: created, Spec: labelled("first")}).GetService()
	if updated.GetEndpoint().GetVip() == "" || updated.GetWrittenAt() != 0 {
		t.Errorf("updated to %v", updated)
	}
	_, err := call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Version: created, Spec: labelled("second")})
	refused(t, err, connect.CodeAborted, "read it again")
}

func TestAnUpdateOfNoParticularVersionLooksAgain(t *testing.T) {
	s := serve(t, statetest.Replicated("web", 1))
	s.proposer.before = func() {
		transaction := state.New(time.Now())
		state.Update(transaction, s.store.Snapshot().ServiceByName("web"), func(s *warrenv1.Service) { s.Spec.Labels = map[string]string{"a": "b"} })
		statetest.Commit(t, s.proposer.Proposer, transaction)
	}
	scaled := must(s, s.services.ScaleService, &warrenv1.ScaleServiceRequest{Ref: "web", Replicas: 5}).GetService()
	if scaled.GetSpec().GetReplicated().GetReplicas() != 5 || scaled.GetSpec().GetLabels()["a"] != "b" {
		t.Errorf("one of two changes is lost: %v", scaled.GetSpec())
	}
}

func TestRefsAreNamesIdsAndUniqueBeginningsOfIds(t *testing.T) {
	withID := func(id string) func(*warrenv1.Service) { return func(s *warrenv1.Service) { s.Meta.Id = id } }
	s := serve(t, statetest.Replicated("web", 1, withID("aab2222222222222")), statetest.Replicated("aab", 1, withID("cc22222222222222")),
		statetest.Replicated("db", 1, withID("aac2222222222222")))
	for ref, want := range map[string]string{"web": "web", "aab2222222222222": "web", "aab2": "web", "aab": "aab", "c": "aab"} {
		if got := must(s, s.services.GetService, &warrenv1.GetServiceRequest{Ref: ref}).GetEntry().GetService().GetSpec().GetName(); got != want {
			t.Errorf("%s is %s, want %s", ref, got, want)
		}
	}
	_, err := call(s, s.services.GetService, &warrenv1.GetServiceRequest{Ref: "aa"})
	refused(t, err, connect.CodeInvalidArgument, "ambiguous", "aab2222222222222 (web)", "aac2222222222222 (db)")
	_, err = call(s, s.services.GetService, &warrenv1.GetServiceRequest{Ref: "nope"})
	refused(t, err, connect.CodeNotFound, `no service named or beginning with "nope"`, "warrenctl service ls")
}

func TestATaskIsFoundByItsSlotOrItsNode(t *testing.T) {
	at := func(d time.Duration) func(*warrenv1.Task) {
		return func(task *warrenv1.Task) { task.Meta.CreatedAt = timestamppb.New(statetest.Epoch.Add(d)) }
	}
	s := serve(t, statetest.Replicated("web", 2), statetest.Global("agent"), statetest.Node("n1.example"), statetest.Node("n2"),
		statetest.Task("old", "web", 1, "n2", at(0), statetest.In(warrenv1.TaskState_TASK_STATE_FAILED)), statetest.Task("new", "web", 1, "n2", at(time.Second)),
		statetest.Task("other", "web", 2, "n2"), statetest.Task("taken back", "web", 2, "n2", at(time.Second), statetest.In(warrenv1.TaskState_TASK_STATE_SHUTDOWN)), statetest.Task("a1", "agent", 0, "n1.example"), statetest.Task("a2", "agent", 0, "n2"))
	for ref, want := range map[string]string{"web.1": "new", "web.2": "other", "agent.n1.example": "a1", "agent.n2": "a2", "old": "old"} {
		if got := must(s, s.tasks.GetTask, &warrenv1.GetTaskRequest{Ref: ref}).GetEntry().GetTask().GetMeta().GetId(); got != want {
			t.Errorf("%s is %s, want %s", ref, got, want)
		}
	}
	_, err := call(s, s.tasks.GetTask, &warrenv1.GetTaskRequest{Ref: "web.3"})
	refused(t, err, connect.CodeNotFound, "web.3", "warrenctl service ps web")
}

func TestTasksAreListedByServiceSlotAndAgeWhateverThePage(t *testing.T) {
	objects := []state.Object{statetest.Node("n1"), statetest.Node("n2"), statetest.Replicated("web", 2), statetest.Replicated("app", 1), statetest.Global("glob")}
	add := func(id, service string, slot uint32, node string, age int) {
		objects = append(objects, statetest.Task(id, service, slot, node, func(task *warrenv1.Task) {
			task.Meta.CreatedAt = timestamppb.New(statetest.Epoch.Add(-time.Duration(age) * time.Second))
		}))
	}
	add("w1-old", "web", 1, "n1", 9)
	add("w1-new", "web", 1, "n2", 1)
	add("w2", "web", 2, "n1", 5)
	add("w11", "web", 11, "n1", 5)
	add("app", "app", 1, "n1", 3)
	add("g2", "glob", 0, "n2", 1)
	add("g1-old", "glob", 0, "n1", 8)
	add("g1", "glob", 0, "n1", 2)
	s := serve(t, objects...)
	want := []string{"app", "g1", "g1-old", "g2", "w1-new", "w1-old", "w2", "w11"}
	for size := range uint32(len(want) + 1) {
		if got := s.listTasks(&warrenv1.ListTasksRequest{PageSize: size}); !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v", size, got)
		}
	}
	if got := s.listTasks(&warrenv1.ListTasksRequest{PageSize: 1, Node: "n1"}); !slices.Equal(got, []string{"app", "g1", "g1-old", "w1-old", "w2", "w11"}) {
		t.Errorf("on n1: %v", got)
	}
	if got := s.listTasks(&warrenv1.ListTasksRequest{Node: "n2", Service: "web"}); !slices.Equal(got, []string{"w1-new"}) {
		t.Errorf("of web on n2: %v", got)
	}
	_, err := call(s, s.tasks.ListTasks, &warrenv1.ListTasksRequest{PageToken: "x"})
	refused(t, err, connect.CodeInvalidArgument, "page_token")
}

func (s *served) listTasks(req *warrenv1.ListTasksRequest) (ids []string) {
	s.t.Helper()
	for {
		res := must(s, s.tasks.ListTasks, req)
		for _, e := range res.GetTasks() {
			ids = append(ids, e.GetTask().GetMeta().GetId())
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			return ids
		}
	}
}

func TestServicesAndNodesArePagedByName(t *testing.T) {
	s := serve(t, statetest.Replicated("b", 1), statetest.Replicated("a", 1), statetest.Replicated("a-1", 1),
		statetest.Node("n2"), statetest.Node("n1"), statetest.Node("n0", func(n *warrenv1.Node) { n.Facts.Hostname = "n1" }))
	var services, nodes []string
	for req := (&warrenv1.ListServicesRequest{PageSize: 1}); ; {
		res := must(s, s.services.ListServices, req)
		for _, e := range res.GetServices() {
			services = append(services, e.GetService().GetSpec().GetName())
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	for req := (&warrenv1.ListNodesRequest{PageSize: 1}); ; {
		res := must(s, s.nodes.ListNodes, req)
		for _, e := range res.GetNodes() {
			nodes = append(nodes, e.GetNode().GetMeta().GetId())
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(services, []string{"a", "a-1", "b"}) || !slices.Equal(nodes, []string{"n0", "n1", "n2"}) {
		t.Errorf("services %v, nodes %v", services, nodes)
	}
	_, err := call(s, s.nodes.GetNode, &warrenv1.GetNodeRequest{Ref: "n9"})
	refused(t, err, connect.CodeNotFound, "warrenctl node ls")
}

func TestANodeShowsWhatItsTasksHaveReserved(t *testing.T) {
	service := statetest.Replicated("web", 3, func(s *warrenv1.Service) {
		s.Spec.Task.Reservations = &warrenv1.Resources{NanoCpus: 5e8, MemoryBytes: 1 << 20}
	})
	s := serve(t, service, statetest.Revision(service), statetest.Node("n1"), statetest.Task("a", "web", 1, "n1"),
		statetest.Task("b", "web", 2, "n1"), statetest.Task("c", "web", 3, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_FAILED)))
	got := must(s, s.nodes.GetNode, &warrenv1.GetNodeRequest{Ref: "n1"}).GetEntry()
	if got.GetTasks() != 2 || got.GetReserved().GetNanoCpus() != 1e9 || got.GetReserved().GetMemoryBytes() != 2<<20 {
		t.Errorf("%d tasks, reserved %v", got.GetTasks(), got.GetReserved())
	}
}

func TestOnlyANodeThatIsDownIsDeletedUnlessForced(t *testing.T) {
	down := func(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN }
	s := serve(t, statetest.Node("n1"), statetest.Node("n2", down))
	must(s, s.nodes.DeleteNode, &warrenv1.DeleteNodeRequest{Ref: "n2"})
	_, err := call(s, s.nodes.DeleteNode, &warrenv1.DeleteNodeRequest{Ref: "n1"})
	refused(t, err, connect.CodeFailedPrecondition, "node n1 is ready, not down", "--force")
	must(s, s.nodes.DeleteNode, &warrenv1.DeleteNodeRequest{Ref: "n1", Force: true})
	for n := range s.store.Snapshot().Nodes() {
		t.Errorf("%s is still there", n.GetMeta().GetId())
	}
}

func TestTasksOfARemovedNodeAreStillKnownByItsHostname(t *testing.T) {
	agent := statetest.Global("agent")
	node := statetest.Node("n1", func(n *warrenv1.Node) {
		n.Facts.Hostname, n.Network = "paris", &warrenv1.NodeNetwork{Subnet: "10.208.7.0/24"}
	})
	s := serve(t, &statev1.Authority{Meta: &warrenv1.Meta{Id: "authority"}}, node, agent, statetest.Revision(agent),
		statetest.Task("a", "agent", 0, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_FAILED)))
	must(s, s.nodes.DeleteNode, &warrenv1.DeleteNodeRequest{Ref: "paris", Force: true})
	got := must(s, s.tasks.ListTasks, &warrenv1.ListTasksRequest{Service: "agent"}).GetTasks()
	if len(got) != 1 || got[0].GetNodeHostname() != "paris" {
		t.Errorf("shown are %v", got)
	}
	if gone := s.store.Snapshot().Authority().GetRemoved(); len(gone) != 1 || gone[0].GetSubnet() != "10.208.7.0/24" {
		t.Errorf("remembered is %v", gone)
	}
}

func TestANodesSpecIsReplaced(t *testing.T) {
	s := serve(t, statetest.Node("n1"))
	got := must(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: &warrenv1.NodeSpec{
		Labels: map[string]string{"zone": "a"}, Availability: warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN,
	}}).GetNode()
	if got.GetSpec().GetLabels()["zone"] != "a" || !proto.Equal(got, s.store.Snapshot().Node("n1")) {
		t.Errorf("got %v", got)
	}
}

func TestUnsetClusterSettingsTakeTheirDefaults(t *testing.T) {
	s := serve(t)
	got := must(s, s.clusters.UpdateCluster, &warrenv1.UpdateClusterRequest{Spec: &warrenv1.ClusterSpec{NodeGrace: durationpb.New(10 * time.Second)}}).GetCluster().GetSpec()
	want := &warrenv1.ClusterSpec{
		Name: "warren", HeartbeatInterval: durationpb.New(time.Second), NodeGrace: durationpb.New(10 * time.Second),
		RestartGrace: durationpb.New(time.Minute), TaskHistory: proto.Uint32(5), CertificateLife: durationpb.New(30 * 24 * time.Hour),
		Network: &warrenv1.ClusterNetwork{
			NodeRange: "10.208.0.0/12", NodePrefix: 24, VipRange: "10.224.0.0/16", WireguardPort: 7421, KeyLife: durationpb.New(30 * 24 * time.Hour),
		},
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	_, err := call(s, s.clusters.InitCluster, &warrenv1.InitClusterRequest{Spec: &warrenv1.ClusterSpec{HeartbeatInterval: durationpb.New(3 * time.Second)}})
	refused(t, err, connect.CodeInvalidArgument, "spec.node_grace", "twice")
}

func TestNothingIsAnsweredOutsideACluster(t *testing.T) {
	s := serve(t)
	s.member.ready = api.ErrUninitialized
	_, err := call(s, s.services.ListServices, &warrenv1.ListServicesRequest{})
	refused(t, err, connect.CodeFailedPrecondition, "not part of a cluster yet", "warrenctl cluster init")
	must(s, s.clusters.GetVersion, &warrenv1.GetVersionRequest{})
	must(s, s.clusters.InitCluster, &warrenv1.InitClusterRequest{})
	s.member.ready = consensus.ErrNotLeader
	_, err = call(s, s.services.ListServices, &warrenv1.ListServicesRequest{})
	refused(t, err, connect.CodeUnavailable, "not the leader", "try again")
}

func TestAServiceIsWatchedUntilItIsGone(t *testing.T) {
	s := serve(t, statetest.Replicated("web", 1), statetest.Replicated("db", 1))
	stream, err := s.services.WatchService(t.Context(), connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: "web"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	next := func() *warrenv1.WatchServiceResponse {
		t.Helper()
		if !stream.Receive() {
			t.Fatalf("the stream ended: %v", stream.Err())
		}
		return stream.Msg()
	}
	if p := next().GetProgress(); p.GetDesired() != 1 || p.GetRunning() != 0 || p.GetConverged() {
		t.Errorf("at first: %v", p)
	}
	statetest.Put(t, s.store, statetest.Task("d1", "db", 1, "n1"), statetest.Task("t1", "web", 1, "n1"))
	if p := next().GetProgress(); p.GetRunning() != 1 || !p.GetConverged() || len(p.GetSlots()) != 1 {
		t.Errorf("when its task runs: %v", p)
	}
	must(s, s.services.DeleteService, &warrenv1.DeleteServiceRequest{Ref: "web"})
	if m := next(); !m.GetService().GetRemoving() || m.GetRemoved() {
		t.Errorf("when it is being removed: %v", m)
	}
	snapshot := s.store.Snapshot()
	transaction := state.New(time.Now())
	transaction.Delete(snapshot.Task("t1"))
	transaction.Delete(snapshot.Service("web"))
	statetest.Commit(t, s.proposer.Proposer, transaction)
	if m := next(); !m.GetRemoved() || m.GetService().GetSpec().GetName() != "web" {
		t.Errorf("when it is gone: %v", m)
	}
	if stream.Receive() || stream.Err() != nil {
		t.Errorf("after the end: %v, %v", stream.Msg(), stream.Err())
	}
}

func TestStreamsEndWhenTheManagerStops(t *testing.T) {
	s := serve(t, statetest.Replicated("web", 1))
	stream, err := s.services.WatchService(t.Context(), connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: "web"}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	defer stream.Close()
	s.close()
	if stream.Receive() {
		t.Fatal("one more message")
	}
	refused(t, stream.Err(), connect.CodeUnavailable, "shutting down")
}

func TestEventsOfTheKindsAskedForAreToldFromTheTimeAskedFor(t *testing.T) {
	s := serve(t)
	event := func(index uint64, kind warrenv1.EventObject, at time.Duration) *warrenv1.Event {
		return &warrenv1.Event{Index: index, Object: kind, Time: timestamppb.New(statetest.Epoch.Add(at))}
	}
	s.events.Append(event(1, warrenv1.EventObject_EVENT_OBJECT_NODE, 0), event(2, warrenv1.EventObject_EVENT_OBJECT_TASK, time.Second),
		event(3, warrenv1.EventObject_EVENT_OBJECT_NODE, time.Second))
	stream, err := s.watch.WatchEvents(t.Context(), connect.NewRequest(&warrenv1.WatchEventsRequest{
		Since: timestamppb.New(statetest.Epoch.Add(time.Second)), Objects: []warrenv1.EventObject{warrenv1.EventObject_EVENT_OBJECT_NODE},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var got []uint64
	for len(got) < 2 && stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			got = append(got, e.GetIndex())
		}
		if len(got) == 1 {
			s.events.Append(event(4, warrenv1.EventObject_EVENT_OBJECT_TASK, time.Minute), event(5, warrenv1.EventObject_EVENT_OBJECT_NODE, time.Minute))
		}
	}
	if !slices.Equal(got, []uint64{3, 5}) {
		t.Errorf("got %v, %v", got, stream.Err())
	}
}

func TestEventsUntilATimeEndWithIt(t *testing.T) {
	s := serve(t)
	event := func(index uint64, name string, at time.Time) *warrenv1.Event {
		return &warrenv1.Event{Index: index, Object: warrenv1.EventObject_EVENT_OBJECT_SERVICE, ObjectId: name, ServiceId: name, ObjectName: name, Time: timestamppb.New(at)}
	}
	until := time.Now().Add(300 * time.Millisecond)
	s.events.Append(event(1, "web", statetest.Epoch), event(2, "api", statetest.Epoch), event(3, "web", until))
	stream, err := s.watch.WatchEvents(t.Context(), connect.NewRequest(&warrenv1.WatchEventsRequest{
		Since: timestamppb.New(statetest.Epoch), Until: timestamppb.New(until), Services: []string{"web"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var got []uint64
	for stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			got = append(got, e.GetIndex())
		}
	}
	if !slices.Equal(got, []uint64{1}) || stream.Err() != nil || time.Now().Before(until) {
		t.Errorf("got %v, %v", got, stream.Err())
	}
	none, err := s.watch.WatchEvents(t.Context(), connect.NewRequest(&warrenv1.WatchEventsRequest{By: []string{""}}))
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	for none.Receive() {
	}
	refused(t, none.Err(), connect.CodeInvalidArgument)
}

func TestAMistypedFieldOfAJSONRequestIsNotPassedOver(t *testing.T) {
	s := serve(t)
	res, err := s.http.Client().Post(s.url+"/warren.v1.ServiceService/ListServices", "application/json", strings.NewReader(`{"pageSiz": 3}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestATooLargeRequestIsRefused(t *testing.T) {
	s := serve(t)
	_, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web", func(s *warrenv1.ServiceSpec) {
		s.Task.Container.Args = slices.Repeat([]string{strings.Repeat("x", 100_000)}, 50)
	})})
	refused(t, err, connect.CodeResourceExhausted)
}
