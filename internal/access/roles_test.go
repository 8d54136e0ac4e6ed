package access

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	viewer    = warrenv1.Role_ROLE_VIEWER
	operator  = warrenv1.Role_ROLE_OPERATOR
	admin     = warrenv1.Role_ROLE_ADMIN
	agent     = warrenv1.Role_ROLE_AGENT
	manager   = warrenv1.Role_ROLE_MANAGER
	anonymous = warrenv1.Role_ROLE_ANONYMOUS
)

func TestARefusalSaysWhoMayAndWhatToDo(t *testing.T) {
	rules := NewRules()
	for _, c := range []struct {
		who       caller.Caller
		procedure string
		code      connect.Code // 0: let through
		words     string
	}{
		{caller.Caller{Role: viewer, Name: "vera"}, warrenv1connect.ServiceServiceListServicesProcedure, 0, ""},
		{caller.Caller{Role: viewer, Name: "vera"}, warrenv1connect.ServiceServiceCreateServiceProcedure, connect.CodePermissionDenied, "viewer vera may not call"},
		{caller.Caller{Role: operator, Name: "olga"}, warrenv1connect.UserServiceCreateUserProcedure, connect.CodePermissionDenied, "that takes admin"},
		{caller.Caller{Role: admin, Name: "anna"}, warrenv1connect.ClusterServiceInitClusterProcedure, connect.CodePermissionDenied, "run warrenctl there as root"},
		{caller.Caller{Role: admin, Name: "root", Local: true}, warrenv1connect.ClusterServiceInitClusterProcedure, 0, ""},
		{caller.Caller{Role: admin, Name: "root", Local: true}, warrenv1connect.SessionServiceAttendProcedure, connect.CodePermissionDenied, "that takes agent"},
		{caller.Caller{Role: anonymous}, warrenv1connect.NodeServiceListNodesProcedure, connect.CodeUnauthenticated, "warrenctl user create"},
		{caller.Caller{Role: anonymous}, warrenv1connect.MembershipServiceJoinProcedure, 0, ""},
		{caller.Caller{Role: agent, Name: "n1"}, warrenv1connect.MembershipServiceJoinProcedure, 0, ""},
		{caller.Caller{Role: anonymous, Refused: fmt.Errorf("%w: yesterday", pki.ErrExpired)}, warrenv1connect.NodeServiceListNodesProcedure, connect.CodeUnauthenticated, "warrenctl cluster leave --force"},
		{caller.Caller{Role: anonymous, Refused: pki.ErrNotYetValid}, warrenv1connect.NodeServiceListNodesProcedure, connect.CodeUnauthenticated, "NTP"},
		{caller.Caller{Role: anonymous, Refused: pki.ErrForeign}, warrenv1connect.NodeServiceListNodesProcedure, connect.CodeUnauthenticated, "another cluster"},
		{caller.Caller{Role: anonymous, Refused: errors.New("user bob is nobody")}, warrenv1connect.NodeServiceListNodesProcedure, connect.CodeUnauthenticated, "join the group warren"},
		{caller.Caller{}, warrenv1connect.NodeServiceListNodesProcedure, connect.CodePermissionDenied, "may not call"},
	} {
		err := rules.Check(c.who, c.procedure)
		if c.code == 0 {
			if err != nil {
				t.Errorf("%v: %s: %v", c.who, c.procedure, err)
			}
			continue
		}
		if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%v: %s: got %v, want %v with %q", c.who, c.procedure, err, c.code, c.words)
		}
	}
}

func TestViewersWriteNothingAndReadNoSecrets(t *testing.T) {
	for method := range Methods() {
		declared := Declared(method)
		if !slices.Contains(declared.GetRoles(), viewer) {
			continue
		}
		if declared.GetWrite() {
			t.Errorf("%s writes, and viewers may call it", method.FullName())
		}
		if secret := secretIn(method.Output(), nil); secret != "" {
			t.Errorf("%s tells viewers %s", method.FullName(), secret)
		}
	}
}

// secretIn returns a field of a message, or of one in it, that is marked as a secret.
func secretIn(m protoreflect.MessageDescriptor, seen []protoreflect.FullName) protoreflect.FullName {
	if slices.Contains(seen, m.FullName()) {
		return ""
	}
	seen = append(seen, m.FullName())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if options, ok := f.Options().(*descriptorpb.FieldOptions); ok && options.GetDebugRedact() {
			return f.FullName()
		}
		if f.Message() != nil {
			if secret := secretIn(f.Message(), seen); secret != "" {
				return secret
			}
		}
	}
	return ""
}

func TestARoleMayDoAllThatALesserOneMay(t *testing.T) {
	for method := range Methods() {
		roles := Declared(method).GetRoles()
		for _, pair := range [][2]warrenv1.Role{{viewer, operator}, {operator, admin}} {
			if slices.Contains(roles, pair[0]) && !slices.Contains(roles, pair[1]) {
				t.Errorf("%s: %s may call it, %s may not", method.FullName(), pki.RoleName(pair[0]), pki.RoleName(pair[1]))
			}
		}
	}
}

// handbook is the page that tells people what each role may do, and where on it.
const (
	handbook   = "../../docs/security.md"
	tableBegin = "<!-- roles: made from proto/warren/v1; UPDATE_DOCS=1 go test ./internal/access writes it anew -->\n"
	tableEnd   = "<!-- roles: end -->\n"
)

func TestTheHandbookTellsWhatEachRoleMayCall(t *testing.T) {
	page, err := os.ReadFile(handbook)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(page), tableBegin)
	was, after, ended := strings.Cut(rest, tableEnd)
	if !begun || !ended {
		t.Fatalf("%s has no place for the table of roles", handbook)
	}
	want := table()
	if was == want {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatalf("the table of roles in %s is not what the proto declares: run UPDATE_DOCS=1 go test ./internal/access", handbook)
	}
	if err := os.WriteFile(handbook, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is who may call what, in Markdown.
func table() string {
	columns := []warrenv1.Role{viewer, operator, admin, agent, manager, anonymous}
	var b strings.Builder
	b.WriteString("| call | viewer | operator | admin | agent | manager | nobody in particular |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	var methods []protoreflect.MethodDescriptor
	for method := range Methods() {
		methods = append(methods, method)
	}
	slices.SortStableFunc(methods, func(x, y protoreflect.MethodDescriptor) int {
		return strings.Compare(string(x.Parent().FullName()), string(y.Parent().FullName()))
	})
	for _, method := range methods {
		declared := Declared(method)
		name := fmt.Sprintf("%s/%s", method.Parent().Name(), method.Name())
		if declared.GetWrite() {
			name += " ✎"
		}
		fmt.Fprintf(&b, "| %s |", name)
		for _, role := range columns {
			switch {
			case !slices.Contains(declared.GetRoles(), role):
				b.WriteString("  |")
			case declared.GetLocal():
				b.WriteString(" on the machine |")
			default:
				b.WriteString(" yes |")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
