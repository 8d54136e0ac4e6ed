package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func (b *bench) exec(id string, timeout time.Duration, command ...string) (Execution, error) {
	return b.Exec(b.t.Context(), Exec{Container: id, Name: "probe", Command: command, Timeout: timeout}, func() {})
}

// processes counts the processes in a container.
func (b *bench) processes(id string) int {
	b.t.Helper()
	response, err := b.client.TaskService().ListPids(b.context(b.t.Context()), &tasks.ListPidsRequest{ContainerID: id})
	if err != nil {
		b.t.Fatal(err)
	}
	return len(response.GetProcesses())
}

// assertAlone fails if a container has more than its first process, or anything of another.
func (b *bench) assertAlone(id string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for b.processes(id) != 1 { // a process that was killed is gone a moment later
		if time.Now().After(deadline) {
			b.t.Fatalf("%d processes are in %s", b.processes(id), id)
		}
		goruntime.Gosched()
	}
	if left, err := filepath.Glob(b.containerPath(id, "exec-*")); err != nil || len(left) > 0 {
		b.t.Errorf("left over: %v %v", left, err)
	}
	_, err := b.client.TaskService().Get(b.context(b.t.Context()), &tasks.GetRequest{ContainerID: id, ExecID: "probe"})
	if err == nil {
		b.t.Error("the shim still knows the program")
	}
}

func TestAProgramRunsInAContainerAsItsFirstOneDoes(t *testing.T) {
	b := newBench(t)
	c := b.container("host")
	c.Spec.Container.User, c.Spec.Container.Env, c.Spec.Container.Workdir = "app", []string{"COLOUR=blue"}, "/etc"
	b.run(c)
	for file, want := range map[string]string{
		"/proc/self/environ": "COLOUR=blue", "/proc/self/status": "\nUid:\t1000\t", "passwd": "root:x:0",
	} {
		ran, err := b.exec(c.ID, patience, "/bin/actor", "cat", file)
		if err != nil || ran.Code != 0 || !strings.Contains(ran.Output, want) {
			t.Errorf("%s: %+v %v", file, ran, err)
		}
	}
	ran, err := b.exec(c.ID, patience, "/bin/actor", "exit", "7")
	if err != nil || ran != (Execution{Code: 7, Output: "exiting with 7\n"}) {
		t.Errorf("%+v %v", ran, err)
	}
	b.assertAlone(c.ID)
}

func TestWhatAProgramPrintsIsReadToItsEndAndTheLastOfItIsKept(t *testing.T) {
	b := newBench(t)
	c := b.container("noisy")
	b.run(c)
	ran, err := b.exec(c.ID, patience, "/bin/actor", "count", "300000")
	if err != nil || ran.Code != 0 || len(ran.Output) != execOutput || !strings.HasSuffix(ran.Output, "line 299999\n") {
		t.Errorf("code %d, %d bytes, %v", ran.Code, len(ran.Output), err)
	}
	b.assertAlone(c.ID)
}

func TestAProgramThatTakesTooLongIsKilledWithItsChildren(t *testing.T) {
	b := newBench(t)
	c := b.container("slow")
	b.run(c)
	begun := time.Now()
	ran, err := b.exec(c.ID, 500*time.Millisecond, "/bin/actor", "family")
	if err != nil || !ran.TimedOut || ran.Output != "child runs\n" {
		t.Errorf("%+v %v", ran, err)
	}
	t.Logf("over after %v", time.Since(begun))
	b.assertAlone(c.ID)
}

func TestACommandThatIsNotThereIsTheContainersFault(t *testing.T) {
	b := newBench(t)
	c := b.container("bare")
	b.run(c)
	ran, err := b.exec(c.ID, patience, "curl", "localhost")
	if err != nil || !strings.Contains(ran.Problem, `exec: "curl": executable file not found in $PATH`) {
		t.Errorf("%+v %v", ran, err)
	}
	b.assertAlone(c.ID)
}

func TestAProgramEndsWithTheWishForIt(t *testing.T) {
	b := newBench(t)
	c := b.container("short")
	b.run(c)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := b.Exec(ctx, Exec{Container: c.ID, Name: "probe", Command: []string{"/bin/actor", "family"}, Timeout: time.Hour}, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	b.assertAlone(c.ID)
}

func TestWhatAKilledAgentHasLeftRunningIsEndedByTheNext(t *testing.T) {
	b := newBench(t)
	c := b.container("left")
	b.run(c)
	x := &execution{Runtime: b.Runtime, Exec: Exec{Container: c.ID, Name: "probe", Command: []string{"/bin/actor", "count", "1000000"}}}
	process, err := b.execProcess(b.context(t.Context()), x.Exec)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(x.pipe(), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(x.pipe(), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := x.prepare(b.context(t.Context()), process); err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.TaskService().Start(b.context(t.Context()), &tasks.StartRequest{ContainerID: c.ID, ExecID: "probe"}); err != nil {
		t.Fatal(err)
	}
	next := openBench(t, b.options)
	ran, err := next.exec(c.ID, patience, "/bin/actor", "echo", "well")
	if err != nil || ran != (Execution{Output: "well\n"}) {
		t.Errorf("%+v %v", ran, err)
	}
	next.assertAlone(c.ID)
}

func TestThatContainerdDiedIsNoFaultOfTheProgram(t *testing.T) {
	b := newBench(t)
	c := b.container("undecided")
	b.run(c)
	ran := make(chan error, 1)
	launched := make(chan struct{})
	go func() {
		_, err := b.Exec(t.Context(), Exec{Container: c.ID, Name: "probe", Command: []string{"/bin/actor", "sleep"}, Timeout: time.Hour}, func() { close(launched) })
		ran <- err
	}()
	<-launched
	b.lab.kill()
	if err := b.lab.start(); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err == nil {
		t.Error("it has an outcome")
	}
	b.heardResync()
	b.assertAlone(c.ID)
}

func TestNoProgramRunsWhereThereIsNoContainer(t *testing.T) {
	b := newBench(t)
	c := b.container("gone", "exit", "0")
	if ran, err := b.exec(c.ID, patience, "/bin/actor"); err == nil {
		t.Errorf("%+v", ran)
	}
	b.run(c)
	b.exit(c.ID)
	if ran, err := b.exec(c.ID, patience, "/bin/actor"); err == nil && ran.Problem == "" {
		t.Errorf("%+v", ran)
	}
	if _, err := os.Stat(b.containerPath(c.ID, "exec-probe")); err == nil {
		t.Error("its pipe is left")
	}
}

func TestAnImagesHealthcheckComesWithItAndStaysWithItsContainers(t *testing.T) {
	b := newBench(t)
	content, err := actorImage(b.lab.actor)
	if err != nil {
		t.Fatal(err)
	}
	config, err := content.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/bin/actor", "exit", "0"}, Interval: 7 * time.Second, Retries: 2}
	if content, err = mutate.ConfigFile(content, config); err != nil {
		t.Fatal(err)
	}
	if err := b.lab.push("checked:1", content); err != nil {
		t.Fatal(err)
	}
	want := &warrenv1.HealthCheck{
		Probe:    &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"/bin/actor", "exit", "0"}}},
		Interval: durationpb.New(7 * time.Second), Retries: 2,
	}
	image, err := b.Pull(t.Context(), b.lab.registry+"/checked:1", nil)
	if err != nil || !proto.Equal(image.Health, want) {
		t.Fatalf("%v %v", image, err)
	}
	checked, plain := b.container("checked"), b.container("plain")
	checked.Image = image
	b.run(checked)
	b.run(plain)
	found, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if (f.TaskID == "checked") != proto.Equal(f.Health, want) || (f.TaskID == "plain") != (f.Health == nil) {
			t.Errorf("%s: %v", f.TaskID, f.Health)
		}
	}
}

func TestHealthchecksOfImages(t *testing.T) {
	for config, want := range map[string]*warrenv1.HealthCheck{
		`{}`:                                     nil,
		`{"config":{}}`:                          nil,
		`{"config":{"Healthcheck":{}}}`:          nil,
		`{"config":{"Healthcheck":{"Test":[]}}}`: nil,
		`{"config":{"Healthcheck":{"Test":["NONE"]}}}`:                    nil,
		`{"config":{"Healthcheck":{"Test":["NONE","x"]}}}`:                nil,
		`{"config":{"Healthcheck":{"Test":["CMD"]}}}`:                     nil,
		`{"config":{"Healthcheck":{"Test":"curl localhost"}}}`:            nil,
		`{"config":{"Healthcheck":{"Test":["CMD","a"],"Retries":"two"}}}`: nil,
		`{"config":{"Healthcheck":{"Test":["CMD","a","b"],"Interval":-5,"Retries":-1}}}`: {
			Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"a", "b"}}},
		},
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","a || exit 1"],"Timeout":1000000000,"StartPeriod":2000000000,"StartInterval":3000000000,"Retries":5000}}}`: {
			Probe:   &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"a || exit 1"}, Shell: true}},
			Timeout: durationpb.New(time.Second), StartPeriod: durationpb.New(2 * time.Second), StartInterval: durationpb.New(3 * time.Second), Retries: 1000,
		},
		`{"config":{"Shell":["/bin/bash","-ec"],"Healthcheck":{"Test":["CMD-SHELL","a"]}}}`: {
			Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"/bin/bash", "-ec", "a"}}},
		},
	} {
		if got := imageHealth([]byte(config)); !proto.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: %v", config, got)
		}
	}
}

func TestATailKeepsTheEnd(t *testing.T) {
	var kept tail
	var all strings.Builder
	for i := range 500 {
		text := strings.Repeat(string(rune('a'+i%26)), i*7%900)
		if i == 250 {
			text = strings.Repeat("long", 3000)
		}
		all.WriteString(text)
		if n, err := kept.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		want := all.String()
		if got := kept.String(); got != want[max(0, len(want)-execOutput):] {
			t.Fatalf("after %d bytes it keeps %d others", len(want), len(got))
		}
	}
}

func BenchmarkExec(b *testing.B) {
	bench := newBench(b)
	c := bench.container("measured")
	bench.run(c)
	for b.Loop() {
		if ran, err := bench.exec(c.ID, patience, "/bin/actor", "exit", "0"); err != nil || ran.Code != 0 {
			b.Fatal(ran, err)
		}
	}
}
