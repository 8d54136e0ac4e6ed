package forward

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/cuemby/warren/internal/access"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// procedure is what matters of an RPC here.
type procedure struct {
	name string
	// here: each manager answers for itself.
	here bool
	// stream: it can last.
	stream bool
	// upload: more than one message comes from the caller, so that nobody can send them again.
	upload bool
	// read: a single call that changes nothing, and may be made twice.
	read bool
	// stale: without a leader each manager answers with what it has.
	stale bool
}

// procedures returns all RPCs of the API by path.
func procedures() map[string]procedure {
	all := map[string]procedure{}
	for method := range access.Methods() {
		path := access.Procedure(method)
		stream := method.IsStreamingClient() || method.IsStreamingServer()
		all[path] = procedure{
			name:   path,
			here:   access.Declared(method).GetHere(),
			stream: stream,
			upload: method.IsStreamingClient(),
			read:   !stream && changesNothing(method),
			stale:  !stream && changesNothing(method) || path == warrenv1connect.EventServiceWatchEventsProcedure,
		}
	}
	return all
}

func changesNothing(method protoreflect.MethodDescriptor) bool {
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}
