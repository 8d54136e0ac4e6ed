package api_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// elsewhere are the services of the API that this handler does not answer.
var elsewhere = []protoreflect.FullName{
	warrenv1connect.AgentServiceName, // agents do
}

// visitor is somebody who calls every RPC.
type visitor struct {
	name string
	http *http.Client
	url  string
	// role is what the visitor is taken for: anonymous where what it shows is worth nothing.
	role warrenv1.Role
	// local visitors are on the manager's machine.
	local bool
	// banned visitors were members or users and are no more, so that not even what anybody may call is
	// open to them.
	banned bool
}

// visitors returns one of every kind.
func visitors(t *testing.T, r *realm) []visitor {
	const (
		anonymous = warrenv1.Role_ROLE_ANONYMOUS
		agent     = warrenv1.Role_ROLE_AGENT
		manager   = warrenv1.Role_ROLE_MANAGER
		viewer    = warrenv1.Role_ROLE_VIEWER
		operator  = warrenv1.Role_ROLE_OPERATOR
		admin     = warrenv1.Role_ROLE_ADMIN
	)
	now := time.Now()
	removedAgent, removedManager := r.member(agent, "gone", now), r.member(manager, "gone2", now)
	r.write(func(t *state.Transaction, s state.Snapshot) { authority.Remove(t, s, "gone", now) })
	r.write(func(t *state.Transaction, s state.Snapshot) { authority.Remove(t, s, "gone2", now) })
	removedUser, demoted, replaced := r.user(admin, "rita"), r.user(admin, "dora"), r.user(admin, "kim")
	r.write(func(t *state.Transaction, s state.Snapshot) {
		t.Delete(s.User("rita"))
		state.Update(t, s.User("dora"), func(u *warrenv1.User) { u.Role = viewer })
		state.Update(t, s.User("kim"), func(u *warrenv1.User) { u.KeyDigest = make([]byte, 32) })
	})
	url := r.url()
	all := []visitor{
		{name: "nobody", http: r.overTLS(nil), url: url, role: anonymous},
		{name: "admin of another cluster", http: r.overTLS(foreign(t)), url: url, role: anonymous},
		{name: "manager whose certificate has expired", http: r.overTLS(r.member(manager, "late", now.Add(-60*24*time.Hour))), url: url, role: anonymous},
		{name: "agent whose certificate is not valid yet", http: r.overTLS(r.member(agent, "early", now.Add(24*time.Hour))), url: url, role: anonymous},
		{name: "agent", http: r.overTLS(r.member(agent, "n1", now)), url: url, role: agent},
		{name: "manager", http: r.overTLS(r.member(manager, "m2", now)), url: url, role: manager},
		{name: "viewer", http: r.overTLS(r.user(viewer, "vera")), url: url, role: viewer},
		{name: "operator", http: r.overTLS(r.user(operator, "olga")), url: url, role: operator},
		{name: "admin", http: r.overTLS(r.user(admin, "anna")), url: url, role: admin},
		{name: "removed agent", http: r.overTLS(removedAgent), url: url, banned: true},
		{name: "removed manager", http: r.overTLS(removedManager), url: url, banned: true},
		{name: "removed user", http: r.overTLS(removedUser), url: url, banned: true},
		{name: "user who has another role now", http: r.overTLS(demoted), url: url, banned: true},
		{name: "user whose key was replaced", http: r.overTLS(replaced), url: url, banned: true},
		{name: "user that never was", http: r.overTLS(r.member(admin, "nemo", now)), url: url, banned: true},
		{name: "root on the machine", http: r.locally(nil), url: "http://manager", role: admin, local: true},
	}
	if os.Geteuid() == 0 { // only root can be somebody else
		if err := os.Chmod(r.socket, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := openUp(r.socket); err != nil {
			t.Fatal(err)
		}
		all = append(all, visitor{name: "another account of the machine", http: r.locally(dialAsNobody), url: "http://manager", role: anonymous})
	}
	return all
}

func TestEveryRPCIsOpenToExactlyTheRolesItDeclares(t *testing.T) {
	r := serveTLS(t, statetest.Node("n1"))
	for _, v := range visitors(t, r) {
		t.Run(v.name, func(t *testing.T) {
			for method := range access.Methods() {
				code, found := visit(t, v, method)
				if served := !slices.Contains(elsewhere, method.Parent().FullName()); served != found {
					t.Errorf("%s: served is %v: is the list of services that are answered elsewhere right?", method.FullName(), found)
				}
				if !found {
					continue
				}
				refused := code == connect.CodePermissionDenied || code == connect.CodeUnauthenticated
				if may := v.may(access.Declared(method)); may == refused {
					t.Errorf("%s: may call is %v, and the answer was %q", method.FullName(), may, code)
				}
			}
		})
	}
}

// may tells whether a declaration lets a visitor call.
func (v visitor) may(declared *warrenv1.Access) bool {
	if v.banned || declared.GetLocal() && !v.local {
		return false
	}
	return slices.Contains(declared.GetRoles(), v.role) || slices.Contains(declared.GetRoles(), warrenv1.Role_ROLE_ANONYMOUS)
}

func TestWhatIsNotDeclaredIsAnsweredToNobody(t *testing.T) {
	r := serveTLS(t)
	for _, path := range []string{"/warren.v1.NodeService/Nope", "/warren.v1.NodeService", "/debug/pprof/", "/"} {
		res, err := r.locally(nil).Post("http://manager"+path, "application/proto", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

func TestNobodyButManagersMaySpeakForOthers(t *testing.T) {
	r := serveTLS(t)
	header := func(role string) http.Header {
		return http.Header{"Warren-Caller": {encoded(map[string]any{"Role": role, "Name": "root", "Local": true})}}
	}
	node := warrenv1connect.NodeServiceListNodesProcedure
	call := func(c *pki.Credentials, h http.Header) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url()+node, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = h
		req.Header.Set("Content-Type", "application/proto")
		res, err := r.overTLS(c).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := call(nil, header("admin")); got != http.StatusUnauthorized {
		t.Errorf("a stranger who says to be root: %d", got)
	}
	if got := call(r.member(warrenv1.Role_ROLE_AGENT, "n1", time.Now()), header("admin")); got != http.StatusForbidden {
		t.Errorf("an agent that says to be root: %d", got)
	}
	manager := r.member(warrenv1.Role_ROLE_MANAGER, "m2", time.Now())
	if got := call(manager, header("admin")); got != http.StatusOK {
		t.Errorf("a manager that passes a call of root's on: %d", got)
	}
	if got := call(manager, header("nonsense")); got != http.StatusUnauthorized {
		t.Errorf("a manager that passes on what cannot be understood: %d", got)
	}
}

// Nodes' ids, in the form that agents have them.
const (
	ownNode   = "aaaaaaaaaaaaaaaa"
	otherNode = "bbbbbbbbbbbbbbbb"
)

func TestAnAgentNeitherAttendsNorRelaysForAnotherNode(t *testing.T) {
	r := serveTLS(t, statetest.Node(ownNode), statetest.Node(otherNode))
	agentOf := func(node string) warrenv1connect.SessionServiceClient {
		return warrenv1connect.NewSessionServiceClient(r.overTLS(r.member(warrenv1.Role_ROLE_AGENT, node, time.Now())), r.url())
	}
	own, thief := agentOf(ownNode), agentOf(otherNode)
	attend := func(c warrenv1connect.SessionServiceClient, node string) *connect.BidiStreamForClient[warrenv1.AttendRequest, warrenv1.AttendResponse] {
		stream := c.Attend(t.Context())
		hello := &warrenv1.Hello{NodeId: node, Facts: &warrenv1.NodeFacts{Hostname: node, Os: "linux", Arch: "amd64"}}
		if err := stream.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return stream
	}
	_, err := attend(thief, ownNode).Receive()
	refused(t, err, connect.CodePermissionDenied, "may not speak for node "+ownNode)

	session := attend(own, ownNode)
	opened := make(chan error)
	go func() {
		ask := &warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Logs{Logs: &warrenv1.LogsPurpose{TaskId: "t1"}}}
		stream, err := r.exchange.Open(t.Context(), ownNode, ask)
		if err == nil {
			stream.Close()
		}
		opened <- err
	}()
	var id string
	for id == "" {
		m, err := session.Receive()
		if err != nil {
			t.Fatal(err)
		}
		id = m.GetOpenStream().GetStreamId()
	}
	relay := func(c warrenv1connect.SessionServiceClient) *connect.BidiStreamForClient[warrenv1.RelayRequest, warrenv1.RelayResponse] {
		stream := c.Relay(t.Context())
		if err := stream.Send(&warrenv1.RelayRequest{StreamId: id}); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	_, err = relay(thief).Receive()
	refused(t, err, connect.CodeNotFound, "no stream of this id")
	relay(own)
	if err := <-opened; err != nil {
		t.Errorf("for its own node: %v", err)
	}
}

func TestAStreamEndsWithTheNextMessageWhenItsUserIsRemoved(t *testing.T) {
	r := serveTLS(t, statetest.Replicated("web", 1))
	vera := r.user(warrenv1.Role_ROLE_VIEWER, "vera")
	stream, err := warrenv1connect.NewServiceServiceClient(r.overTLS(vera), r.url()).WatchService(t.Context(), connect.NewRequest(&warrenv1.WatchServiceRequest{Ref: "web"}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	defer stream.Close()
	r.write(func(t *state.Transaction, s state.Snapshot) { t.Delete(s.User("vera")) })
	r.write(func(t *state.Transaction, s state.Snapshot) {
		state.Update(t, s.ServiceByName("web"), func(s *warrenv1.Service) { s.Spec.Labels = map[string]string{"secret": "plan"} })
	})
	if stream.Receive() {
		t.Fatalf("told %v", stream.Msg())
	}
	refused(t, stream.Err(), connect.CodeUnauthenticated, "warrenctl user create")
}

// foreign returns the credentials of an administrator of another cluster that has the same name.
func foreign(t *testing.T) *pki.Credentials {
	t.Helper()
	ca, err := pki.NewCA(statetest.ClusterID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	who := pki.Identity{Cluster: statetest.ClusterID, Role: warrenv1.Role_ROLE_ADMIN, Name: "anna"}
	certificate, err := ca.Issue(&key.PublicKey, who, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.New(key, certificate, [][]byte{ca.Certificate.Raw}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// visit calls an RPC with an empty message and returns the code it ends with, and whether there is such
// an RPC. A call that is let through ends as it may; streams that would go on are ended.
func visit(t *testing.T, v visitor, method protoreflect.MethodDescriptor) (code connect.Code, found bool) {
	t.Helper()
	streams := method.IsStreamingClient() || method.IsStreamingServer()
	kind, body := "application/proto", []byte{}
	if streams {
		kind, body = "application/connect+proto", make([]byte, 5) // an envelope with nothing in it
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, v.url+access.Procedure(method), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Connect-Protocol-Version", "1")
	if method.IsStreamingServer() {
		req.Header.Set("Connect-Timeout-Ms", "50") // refusals take no account of it
	}
	res, err := v.http.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", method.FullName(), err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound && !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		return 0, false
	}
	said, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", method.FullName(), err)
	}
	if streams {
		said = last(said)
	} else if res.StatusCode == http.StatusOK {
		return 0, true
	}
	var wire struct {
		Code  string
		Error struct{ Code string }
	}
	if err := json.Unmarshal(said, &wire); err != nil {
		t.Fatalf("%s: %q: %v", method.FullName(), said, err)
	}
	if name := wire.Code + wire.Error.Code; name != "" {
		if err := code.UnmarshalText([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	return code, true
}

// last returns the message that ends a stream.
func last(stream []byte) []byte {
	for len(stream) >= 5 {
		size := binary.BigEndian.Uint32(stream[1:5])
		if stream[0]&2 != 0 {
			return stream[5 : 5+size]
		}
		stream = stream[5+size:]
	}
	return stream
}

// nobody is the account that has no rights.
const nobody = 65534

// dialAsNobody connects to a unix socket under another account. The kernel notes the account of the thread
// that connects, so one thread changes its own.
func dialAsNobody(path string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const unchanged = ^uintptr(0)
	set := func(call, to uintptr) error {
		if _, _, errno := unix.RawSyscall(call, unchanged, to, unchanged); errno != 0 {
			return errno
		}
		return nil
	}
	err := errors.Join(set(unix.SYS_SETRESGID, nobody), set(unix.SYS_SETRESUID, nobody))
	var fd int
	if err == nil {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
	}
	if back := errors.Join(set(unix.SYS_SETRESUID, 0), set(unix.SYS_SETRESGID, 0)); back != nil {
		panic(back)
	}
	if err != nil {
		return nil, fmt.Errorf("connect as nobody: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return net.FileConn(f)
}
