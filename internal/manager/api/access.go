package api

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// access knows what each RPC declares about its callers. One that declares nothing may be called by
// nobody.
type access map[string]*warrenv1.Access

func newAccess() access {
	a := access{}
	for method := range Methods() {
		if declared := declaredAccess(method); len(declared.GetRoles()) > 0 {
			a[procedure(method)] = declared
		}
	}
	return a
}

func (a access) check(_ context.Context, procedure string) error {
	if a[procedure] == nil {
		return &problem{code: connect.CodePermissionDenied, text: procedure + " declares nobody who may call it"}
	}
	return nil
}

// declaredAccess returns the access option of an RPC, nil where it has none.
func declaredAccess(method protoreflect.MethodDescriptor) *warrenv1.Access {
	declared, _ := proto.GetExtension(method.Options(), warrenv1.E_Access).(*warrenv1.Access)
	return declared
}

func procedure(method protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
}

// Methods iterates over the RPCs of the API.
func Methods() iter.Seq[protoreflect.MethodDescriptor] {
	return func(yield func(protoreflect.MethodDescriptor) bool) {
		for service := range services() {
			for i := range service.Methods().Len() {
				if !yield(service.Methods().Get(i)) {
					return
				}
			}
		}
	}
}

// services iterates over the services of the API.
func services() iter.Seq[protoreflect.ServiceDescriptor] {
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

func serviceNames() []string {
	var names []string
	for service := range services() {
		names = append(names, string(service.FullName()))
	}
	return names
}

// ErrUninitialized says that this manager is not part of a cluster yet.
var ErrUninitialized = errors.New("this manager is not part of a cluster yet: run `warrenctl cluster init` on its machine first")

// readiness lets calls pass that the manager can answer now.
type readiness struct {
	access     access
	membership Membership
}

func (r readiness) check(ctx context.Context, procedure string) error {
	if r.access[procedure].GetUninitialized() {
		return nil
	}
	return r.membership.Ready(ctx)
}

// guard is an interceptor that refuses calls before they reach their handler.
type guard func(ctx context.Context, procedure string) error

// WrapUnary implements connect.Interceptor.
func (g guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := g(ctx, req.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (g guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := g(ctx, conn.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor; this is the serving side.
func (g guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
