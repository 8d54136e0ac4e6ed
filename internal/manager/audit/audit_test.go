package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/audit"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// services answers what the tests call.
type services struct {
	warrenv1connect.UnimplementedServiceServiceHandler
	warrenv1connect.UnimplementedManagerServiceHandler
	warrenv1connect.UnimplementedMembershipServiceHandler
	err error
}

func (s services) CreateService(_ context.Context, req *connect.Request[warrenv1.CreateServiceRequest]) (*connect.Response[warrenv1.CreateServiceResponse], error) {
	made := &warrenv1.Service{Meta: &warrenv1.Meta{Id: "abc", Version: 7}, Spec: req.Msg.GetSpec()}
	return connect.NewResponse(&warrenv1.CreateServiceResponse{Service: made}), s.err
}

func (s services) ListServices(context.Context, *connect.Request[warrenv1.ListServicesRequest]) (*connect.Response[warrenv1.ListServicesResponse], error) {
	return connect.NewResponse(&warrenv1.ListServicesResponse{}), nil
}

func (s services) RestoreManager(_ context.Context, stream *connect.ClientStream[warrenv1.RestoreManagerRequest]) (*connect.Response[warrenv1.RestoreManagerResponse], error) {
	for stream.Receive() {
	}
	return connect.NewResponse(&warrenv1.RestoreManagerResponse{ClusterId: "c1"}), errors.Join(s.err, stream.Err())
}

func (s services) Join(context.Context, *connect.Request[warrenv1.JoinRequest]) (*connect.Response[warrenv1.JoinResponse], error) {
	return connect.NewResponse(&warrenv1.JoinResponse{Name: "node1", ClusterKey: []byte("secret")}), s.err
}

// lines is a file of JSON lines in memory.
type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// all returns the lines as they were written, without what differs from run to run.
func (l *lines) all(t *testing.T) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, key := range []string{"time", "duration", "level", "msg"} {
			if m[key] == nil {
				t.Errorf("%s has no %s", line, key)
			}
			delete(m, key)
		}
		text, _ := json.Marshal(m)
		all = append(all, string(text))
	}
	return all
}

// audited is an API of which only the audit log is real.
type audited struct {
	file     lines
	services warrenv1connect.ServiceServiceClient
	manager  warrenv1connect.ManagerServiceClient
	members  warrenv1connect.MembershipServiceClient
	url      string
}

func serve(t *testing.T, who caller.Caller, fails error) *audited {
	t.Helper()
	a := &audited{}
	log := audit.New(access.NewRules(), slog.New(slog.NewTextHandler(t.Output(), nil)), &a.file)
	mux, s := http.NewServeMux(), services{err: fails}
	mux.Handle(warrenv1connect.NewServiceServiceHandler(s, connect.WithInterceptors(log)))
	mux.Handle(warrenv1connect.NewManagerServiceHandler(s, connect.WithInterceptors(log)))
	mux.Handle(warrenv1connect.NewMembershipServiceHandler(s, connect.WithInterceptors(log)))
	handler := log.Handler(mux)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(caller.With(r.Context(), who)))
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	a.services = warrenv1connect.NewServiceServiceClient(server.Client(), server.URL)
	a.manager = warrenv1connect.NewManagerServiceClient(server.Client(), server.URL)
	a.members = warrenv1connect.NewMembershipServiceClient(server.Client(), server.URL)
	return a
}

// wrote checks what the log holds once the server has answered.
func (a *audited) wrote(t *testing.T, want ...string) {
	t.Helper()
	if got := a.file.all(t); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("wrote\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

var (
	operator = caller.Caller{Role: warrenv1.Role_ROLE_OPERATOR, Name: "olga", Addr: "10.0.0.9:4711", Via: "m2"}
	root     = caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true}
	stranger = caller.Caller{Role: warrenv1.Role_ROLE_ANONYMOUS, Addr: "192.0.2.1:99"}
)

func create(name string) *connect.Request[warrenv1.CreateServiceRequest] {
	return connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
		Name: name,
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "nginx", Env: []string{"PASSWORD=hunter2"}}},
	}})
}

func TestAWriteIsALineThatSaysWhoDidWhatThroughWhom(t *testing.T) {
	a := serve(t, operator, nil)
	if _, err := a.services.CreateService(t.Context(), create("web")); err != nil {
		t.Fatal(err)
	}
	a.wrote(t, `{"addr":"10.0.0.9:4711","id":"abc","name":"olga","object":"web","outcome":"ok","role":"operator","rpc":"ServiceService/CreateService","version":7,"via":"m2"}`)
}

func TestReadsAreNotWrittenDown(t *testing.T) {
	a := serve(t, operator, nil)
	if _, err := a.services.ListServices(t.Context(), connect.NewRequest(&warrenv1.ListServicesRequest{})); err != nil {
		t.Fatal(err)
	}
	a.wrote(t)
}

func TestARefusalSaysWhy(t *testing.T) {
	a := serve(t, stranger, connect.NewError(connect.CodeUnauthenticated, errors.New("no certificate was shown")))
	_, _ = a.services.CreateService(t.Context(), create("web"))
	a.wrote(t, `{"addr":"192.0.2.1:99","error":"no certificate was shown","object":"web","outcome":"unauthenticated","role":"anonymous","rpc":"ServiceService/CreateService"}`)
}

func TestAStreamIsOneLineAtItsEnd(t *testing.T) {
	a := serve(t, root, nil)
	stream := a.manager.RestoreManager(t.Context())
	for _, m := range []*warrenv1.RestoreManagerRequest{
		{Message: &warrenv1.RestoreManagerRequest_Options{Options: &warrenv1.RestoreOptions{Force: true}}},
		{Message: &warrenv1.RestoreManagerRequest_Piece{Piece: []byte("state")}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	a.wrote(t)
	if _, err := stream.CloseAndReceive(); err != nil {
		t.Fatal(err)
	}
	a.wrote(t, `{"id":"c1","local":true,"name":"root","outcome":"ok","role":"admin","rpc":"ManagerService/RestoreManager","with":"force"}`)
}

func TestAMachineThatJoinsIsNamedAndItsTokenIsNot(t *testing.T) {
	a := serve(t, stranger, nil)
	if _, err := a.members.Join(t.Context(), connect.NewRequest(&warrenv1.JoinRequest{Token: "WRNTKN-1-x-y"})); err != nil {
		t.Fatal(err)
	}
	a.wrote(t, `{"addr":"192.0.2.1:99","id":"node1","outcome":"ok","role":"anonymous","rpc":"MembershipService/Join"}`)
}

func TestARequestThatCannotBeReadIsWrittenDownToo(t *testing.T) {
	a := serve(t, root, nil)
	res, err := http.Post(a.url+warrenv1connect.ServiceServiceCreateServiceProcedure, "application/json", strings.NewReader("{"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	a.wrote(t, `{"error":"the request could not be read","local":true,"name":"root","outcome":"invalid_argument","role":"admin","rpc":"ServiceService/CreateService"}`)
}

func TestTextsFromElsewhereAreBounded(t *testing.T) {
	a := serve(t, root, connect.NewError(connect.CodeInvalidArgument, errors.New(strings.Repeat("é", 10_000))))
	_, _ = a.services.CreateService(t.Context(), create(strings.Repeat("x", 100_000)))
	if all := a.file.all(t); len(all) != 1 || len(all[0]) > 1000 {
		t.Errorf("%d lines, %d bytes", len(all), len(strings.Join(all, "")))
	}
}

func TestWhomAnAdministratorHasAdmittedIsWrittenDownHoweverOften(t *testing.T) {
	const calls = 100
	a := serve(t, operator, connect.NewError(connect.CodePermissionDenied, errors.New("no")))
	for range calls {
		_, _ = a.services.CreateService(t.Context(), create("web"))
	}
	if all := a.file.all(t); len(all) != calls {
		t.Errorf("%d of %d refusals of an operator were written", len(all), calls)
	}
}

// TestNoSecretIsEverWritten sends every request with a mark of its own in every text, and looks which of
// them the log holds.
func TestNoSecretIsEverWritten(t *testing.T) {
	for method := range access.Methods() {
		if method.IsStreamingClient() {
			continue // see TestAStreamIsOneLineAtItsEnd
		}
		request := dynamicpb.NewMessage(method.Input())
		marks := map[string]protoreflect.FieldDescriptor{}
		fill(request, marks, 0)
		var file lines
		log := audit.New(access.NewRules(), slog.New(slog.DiscardHandler), &file)
		call := log.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, errors.New("no") })
		if _, err := call(t.Context(), asked{procedure: access.Procedure(method), message: concrete(t, request)}); err == nil {
			t.Fatal("the call was not made")
		}
		for mark, field := range marks {
			if strings.Contains(file.String(), mark) && !fit[field.Name()] {
				t.Errorf("%s: the log holds %s: %s", method.FullName(), field.FullName(), file.String())
			}
		}
	}
}

// fit are the names of fields that may be in the log.
var fit = map[protoreflect.Name]bool{"ref": true, "name": true, "addr": true, "advertise_addr": true}

// fill puts a text into every field that takes one.
func fill(m protoreflect.Message, marks map[string]protoreflect.FieldDescriptor, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap() || depth > 4:
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			fill(m.Mutable(f).List().AppendMutable().Message(), marks, depth+1)
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), marks, depth+1)
		case f.Kind() == protoreflect.StringKind:
			mark := fmt.Sprintf("mark%dend", len(marks))
			marks[mark] = f
			if f.IsList() {
				m.Mutable(f).List().Append(protoreflect.ValueOfString(mark))
			} else {
				m.Set(f, protoreflect.ValueOfString(mark))
			}
		}
	}
}

// concrete makes a message of the generated type.
func concrete(t *testing.T, m *dynamicpb.Message) proto.Message {
	t.Helper()
	out, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	known, err := protoregistry.GlobalTypes.FindMessageByName(m.Descriptor().FullName())
	if err != nil {
		t.Fatal(err)
	}
	made := known.New().Interface()
	if err := proto.Unmarshal(out, made); err != nil {
		t.Fatal(err)
	}
	return made
}

// asked is a request of any type.
type asked struct {
	connect.AnyRequest
	procedure string
	message   proto.Message
}

func (a asked) Spec() connect.Spec { return connect.Spec{Procedure: a.procedure} }
func (a asked) Any() any           { return a.message }

func TestTheFileIsItsOwnersAloneAndIsAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for range 2 {
		f, err := audit.Open(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 10 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := audit.Open(filepath.Join(path, "x"), nil); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestALineThatIsLostIsToldToTheLog(t *testing.T) {
	var told bytes.Buffer
	f, err := audit.Open("/dev/full", slog.New(slog.NewTextHandler(&told, nil)))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("line\n")); err == nil || !strings.Contains(told.String(), "a line of the audit log is lost") {
		t.Errorf("%v, told %q", err, told.String())
	}
}
