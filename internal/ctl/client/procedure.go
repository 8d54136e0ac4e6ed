package client

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// procedure is what matters of an RPC when it may have to be called twice.
type procedure struct {
	// repeatable: it changes nothing.
	repeatable bool
	// stream: whoever calls takes it up again by themselves.
	stream bool
}

// procedures returns the RPCs of the API by path.
func procedures() map[string]procedure {
	all := map[string]procedure{}
	api := warrenv1.File_warren_v1_access_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(api, func(file protoreflect.FileDescriptor) bool {
		for s := range file.Services().Len() {
			service := file.Services().Get(s)
			for m := range service.Methods().Len() {
				method := service.Methods().Get(m)
				declared, _ := proto.GetExtension(method.Options(), warrenv1.E_Access).(*warrenv1.Access)
				all[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = procedure{
					repeatable: !declared.GetWrite(), stream: method.IsStreamingServer(),
				}
			}
		}
		return true
	})
	return all
}
