// Package access knows what each RPC declares about its callers (the access option in proto/warren/v1)
// and decides whether a caller is one of them. One that declares nothing may be called by nobody.
//
// Start with Rules.Check. Whether a caller still is a member or a user is for the state to say, and
// so for its callers.
package access

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Rules are the declarations by procedure, such as /warren.v1.NodeService/GetNode.
type Rules map[string]*warrenv1.Access

// NewRules reads the declarations of the whole API.
func NewRules() Rules {
	r := Rules{}
	for method := range Methods() {
		if declared := Declared(method); len(declared.GetRoles()) > 0 {
			r[Procedure(method)] = declared
		}
	}
	return r
}

// Check lets a call pass if the RPC lets its caller's role call it from where it comes. Its errors are
// *connect.Error, permission_denied or unauthenticated, and say what to do.
func (r Rules) Check(who caller.Caller, procedure string) error {
	declared := r[procedure]
	switch {
	case declared == nil:
		return refuse(connect.CodePermissionDenied, "%s declares nobody who may call it", procedure)
	case declared.GetLocal() && (!who.Local || who.Via != ""):
		return refuse(connect.CodePermissionDenied, "%s is for callers on the daemon's own machine: run warrenctl there as root", procedure)
	case slices.Contains(declared.GetRoles(), who.Role):
		return nil
	case slices.Contains(declared.GetRoles(), warrenv1.Role_ROLE_ANONYMOUS):
		return nil // whoever anybody may be, a member may be as well
	case who.Refused != nil:
		return refuse(connect.CodeUnauthenticated, "%w: %s", who.Refused, remedy(who.Refused))
	case who.Role == warrenv1.Role_ROLE_ANONYMOUS:
		return refuse(connect.CodeUnauthenticated, "no certificate was shown: use the unix socket on a manager's machine as root, or a context made by `warrenctl user create`")
	}
	return refuse(connect.CodePermissionDenied, "%s may not call %s: that takes %s", who, procedure, list(declared.GetRoles()))
}

func refuse(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// remedy says what to do about a certificate that is refused.
func remedy(why error) string {
	switch {
	case errors.Is(why, pki.ErrExpired):
		return "if it is a machine's, run `warrenctl cluster leave --force` there and let it join anew; if it is a user's, an administrator makes a new one with `warrenctl user create`"
	case errors.Is(why, pki.ErrNotYetValid):
		return "set the clocks of both machines (NTP)"
	case errors.Is(why, pki.ErrForeign):
		return "this is another cluster than the one the certificate is for"
	case errors.Is(why, pki.ErrNone):
		return "run `warrenctl cluster init` or `warrenctl cluster join` on this machine first"
	}
	return "run warrenctl as root, or join the group " + caller.SocketGroup
}

func list(roles []warrenv1.Role) string {
	names := make([]string, 0, len(roles))
	for _, r := range roles {
		names = append(names, pki.RoleName(r))
	}
	return strings.Join(names, " or ")
}

// Declared returns the access option of an RPC, nil where it has none.
func Declared(method protoreflect.MethodDescriptor) *warrenv1.Access {
	declared, _ := proto.GetExtension(method.Options(), warrenv1.E_Access).(*warrenv1.Access)
	return declared
}

// Procedure returns the path by which an RPC is called.
func Procedure(method protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
}

// Methods iterates over the RPCs of the API.
func Methods() iter.Seq[protoreflect.MethodDescriptor] {
	return func(yield func(protoreflect.MethodDescriptor) bool) {
		for service := range Services() {
			for i := range service.Methods().Len() {
				if !yield(service.Methods().Get(i)) {
					return
				}
			}
		}
	}
}

// Services iterates over the services of the API, those of managers and those of agents.
func Services() iter.Seq[protoreflect.ServiceDescriptor] {
	return func(yield func(protoreflect.ServiceDescriptor) bool) {
		api := warrenv1.File_warren_v1_access_proto.Package()
		protoregistry.GlobalFiles.RangeFilesByPackage(api, func(file protoreflect.FileDescriptor) bool {
			for i := range file.Services().Len() {
				if !yield(file.Services().Get(i)) {
					return false
				}
			}
			return true
		})
	}
}
