package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/pluginpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const written = "../../docs/reference/api.md"

func readWritten(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// asked is what buf would ask of the plugin, without the comments, which programs do not have.
func asked() *pluginpb.CodeGeneratorRequest {
	request := &pluginpb.CodeGeneratorRequest{}
	seen := map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(file))
		if file.Package() == api {
			request.FileToGenerate = append(request.FileToGenerate, file.Path())
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage(api, func(file protoreflect.FileDescriptor) bool {
		add(file)
		return true
	})
	return request
}

func plugin(t *testing.T) *protogen.Plugin {
	t.Helper()
	p, err := protogen.Options{}.New(asked())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outline is a page without what comes from comments.
func outline(page string) (lines []string) {
	for line := range strings.Lines(page) {
		switch cells := strings.Split(line, " | "); {
		case strings.HasPrefix(line, "#"), strings.HasPrefix(line, "Callers:"):
			lines = append(lines, line)
		case strings.HasPrefix(line, "| `") && len(cells) > 2:
			lines = append(lines, cells[0]+" | "+cells[1])
		case strings.HasPrefix(line, "| `"):
			lines = append(lines, cells[0])
		}
	}
	return lines
}

// TestTheReferenceTellsTheAPIThatThereIs leaves out the comments: those `make lint` compares.
func TestTheReferenceTellsTheAPIThatThereIs(t *testing.T) {
	p := newPage(plugin(t))
	p.write()
	want, got := outline(p.String()), outline(readWritten(t))
	if !slices.Equal(got, want) {
		t.Errorf("%s is not what the API is: run `make generate`", written)
	}
	if len(want) < 1000 {
		t.Errorf("only %d lines of it are compared", len(want))
	}
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	page, headings := readWritten(t), map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		if headings[anchor(heading[1])] {
			t.Errorf("two headings are %s", anchor(heading[1]))
		}
		headings[anchor(heading[1])] = true
	}
	for _, to := range regexp.MustCompile(`\[[A-Za-z. ]+\]\(([^)#]*)#?([^)]*)\)`).FindAllStringSubmatch(page, -1) {
		if to[1] == "" && !headings[to[2]] {
			t.Errorf("there is no heading %s", to[2])
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(written), to[1])); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryExampleHasWhatTheAPIDemands(t *testing.T) {
	examples := 0
	for _, service := range newPage(plugin(t)).services {
		for _, method := range service.Methods {
			if exampleCall(method) == "" {
				continue
			}
			examples++
			kind, err := protoregistry.GlobalTypes.FindMessageByName(method.Input.Desc.FullName())
			if err != nil {
				t.Fatal(err)
			}
			request, text := kind.New().Interface(), example(method.Input.Desc, "web")
			if err := protojson.Unmarshal([]byte(text), request); err != nil {
				t.Errorf("%s: %s: %v", call(method), text, err)
			}
			if err := protovalidate.Validate(request); err != nil {
				t.Errorf("%s: %s: %v", call(method), text, err)
			}
		}
	}
	if examples < 40 {
		t.Errorf("there are only %d", examples)
	}
}

func TestCallsThatCurlCanMakeHaveAnExample(t *testing.T) {
	page := readWritten(t)
	for _, want := range []string{
		`    warren ServiceService/CreateService '{"spec": {"name": "web", "replicated": {"replicas": 3}, "task": {"container": {"image": "nginx:1.27"}}}}'`,
		`    warren ServiceService/ScaleService '{"ref": "web", "replicas": 3}'`,
		`    stream NetworkService/CheckNetwork`,
		`    curl -sS --unix-socket /run/warren/agent.sock -H 'Content-Type: application/json' http://agent/warren.v1.AgentService/GetAgent -d '{}'`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("there is no\n%s", want)
		}
	}
	for _, not := range []string{"SessionService/Attend", "ManagerService/RestoreManager"} {
		if strings.Contains(page, "warren "+not) || strings.Contains(page, "stream "+not) {
			t.Errorf("%s has one", not)
		}
	}
}

func TestRulesAreInWords(t *testing.T) {
	for _, c := range []struct {
		message     proto.Message
		field, want string
	}{
		{&warrenv1.ServiceSpec{}, "name", "At most 63 characters."},
		{&warrenv1.ServiceSpec{}, "task", "Must be set."},
		{&warrenv1.PortSpec{}, "name", "It matches `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, or empty."},
		{&warrenv1.PortSpec{}, "target", "1 to 65535."},
		{&warrenv1.PortSpec{}, "protocol", ""},
		{&warrenv1.UpdatePolicy{}, "delay", "0 to 1 day."},
		{&warrenv1.HealthCheck{}, "timeout", "1ms to 1h."},
		{&warrenv1.UpdatePolicy{}, "progress_deadline", "1s to 7 days."},
		{&warrenv1.UpdatePolicy{}, "max_failure_ratio", "0 to 1."},
		{&warrenv1.ContainerSpec{}, "groups", "At most 256 elements; each element: 1 to 256 characters."},
		{&warrenv1.ServiceSpec{}, "labels", "At most 256 elements; each key: 1 to 256 characters; each value: at most 4096 characters."},
		{&warrenv1.Mount{}, "type", "Must be set."},
		{&warrenv1.GetJoinTokenRequest{}, "role", "One of `ROLE_AGENT`, `ROLE_MANAGER`."},
	} {
		field := c.message.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(c.field))
		if got := rulesOf(field); got != c.want {
			t.Errorf("%s: %q, want %q", field.FullName(), got, c.want)
		}
	}
	if got := rulesOfMessage((&warrenv1.Mount{}).ProtoReflect().Descriptor()); len(got) != 1 {
		t.Errorf("a mount has the rules %q", got)
	}
}
