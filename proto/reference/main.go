// Command reference writes docs/reference/api.md, the page that tells every call and every message of the API. It is a plugin of
// protoc that buf runs (buf.gen.reference.yaml), as comments are kept in what a compiler of protobuf hands to plugins and nowhere else.
//
// The page is for people who send JSON, with curl at first: fields are as JSON spells them, rules are in words, and each call has an example.
// docs/api.md is what they read before. No plugin that writes pages knows the options of which Warren's API is full: who may call (access)
// and what a field must hold (protovalidate).
//
// Start with page.write.
package main

import (
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/pluginpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1" // for the options to be known
)

// api is the package that the page is about.
var api = warrenv1.File_warren_v1_access_proto.Package()

func main() {
	protogen.Options{}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		p := newPage(plugin)
		p.write()
		_, err := plugin.NewGeneratedFile("api.md", "").Write([]byte(p.String()))
		return err
	})
}
