package command

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestAnEventIsShownOnceWhicheverManagerTellsIt(t *testing.T) {
	at := timestamppb.New(time.Unix(1000, 0))
	event := func(index uint64, id, action string) *warrenv1.Event {
		return &warrenv1.Event{Index: index, ObjectId: id, Action: action, Time: at}
	}
	s := &seenEvents{}
	for n, c := range []struct {
		event *warrenv1.Event
		fresh bool
	}{
		{event(7, "a", "created"), true},
		{event(5, "b", "created"), true}, // of one batch, told in another order
		{event(7, "a", "created"), false},
		{event(7, "a", "running"), true},
		{event(5, "b", "created"), false},
		{event(9, "a", "removed"), true},
		{event(11, "a", "removed"), false}, // the other manager saw more at once
	} {
		if got := s.fresh(c.event); got != c.fresh {
			t.Errorf("event %d: fresh is %v", n, got)
		}
	}
}

func TestAnEventIsShownWithWhoDidIt(t *testing.T) {
	for want, e := range map[string]*warrenv1.Event{
		"Z service web scaled to 3 (by anna)\n":    {Action: "scaled", Message: "service web scaled to 3", By: "anna"},
		"Z service web paused by anna\n":           {Action: "paused", Message: "service web paused by anna", By: "anna"},
		"Z service web goes back: web is broken\n": {Action: "running", Message: "service web goes back: web is broken"},
	} {
		e.Object, e.ObjectName, e.Time = warrenv1.EventObject_EVENT_OBJECT_SERVICE, "web", timestamppb.New(time.Unix(0, 0))
		var out bytes.Buffer
		s := &Session{Streams: &output.Streams{Out: output.Stream{Writer: &out}, Now: func() time.Time { return time.Unix(0, 0).UTC() }}}
		if err := (&Events{}).print(s, e, nil); err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%q, %v; want %q", out.String(), err, want)
		}
	}
}

func TestItIsSaidOnceHowFarBackAManagerRemembers(t *testing.T) {
	at := func(seconds int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(seconds, 0)) }
	for name, c := range map[string]struct {
		asked, seen, since *timestamppb.Timestamp
		want               bool
	}{
		"all of it":                   {asked: at(10)},
		"further than asked":          {asked: at(10), since: at(5)},
		"less than asked":             {asked: at(10), since: at(15), want: true},
		"what another one told":       {asked: at(10), seen: at(20), since: at(15)},
		"not all since another ended": {asked: at(10), seen: at(20), since: at(25), want: true},
	} {
		var said bytes.Buffer
		s := &Session{Streams: &output.Streams{Err: output.Stream{Writer: &said}, Now: func() time.Time { return time.Unix(100, 0).UTC() }}}
		seen := &seenEvents{at: c.seen}
		for range 2 {
			seen.incomplete(s, &warrenv1.WatchEventsRequest{Since: c.asked}, c.since)
		}
		if lines := strings.Count(said.String(), "\n"); lines > 1 || (lines == 1) != c.want {
			t.Errorf("%s: said %q", name, said.String())
		}
	}
}

// cue is a writer that sends each line on.
type cue struct {
	bytes.Buffer
	lines chan string
}

func (c *cue) Write(b []byte) (int, error) {
	for l := range strings.Lines(string(b)) {
		c.lines <- l
	}
	return c.Buffer.Write(b)
}

func TestEventsGoOnAtAnotherManagerWithoutAWord(t *testing.T) {
	dir, err := os.MkdirTemp("", "e") //nolint:usetesting // short: it becomes a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	m, err := fakemanager.Start(filepath.Join(dir, "m.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var doors []*fakemanager.Door
	var addrs []string
	for range 2 {
		d, err := m.Open("")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		doors, addrs = append(doors, d), append(addrs, d.Addr)
	}
	mine, err := m.Credentials(warrenv1.Role_ROLE_VIEWER, "ann")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Addrs: addrs, Credentials: mine})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cluster.InitCluster(t.Context(), connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
		t.Fatal(err)
	}
	create := func(name string) {
		t.Helper()
		_, err := c.Services.CreateService(t.Context(), connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
			Name: name, Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 1}},
			Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "nginx"}},
		}}))
		if err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	out := &cue{lines: make(chan string, 100)}
	var notices bytes.Buffer
	s := &Session{Client: c, Streams: &output.Streams{Out: output.Stream{Writer: out}, Err: output.Stream{Writer: &notices}, Now: time.Now}}
	done := make(chan error, 1)
	go func() {
		done <- (&Events{Follow: true, Since: "1h", Output: "text", Filter: []string{"type=service"}}).Run(ctx, s)
	}()
	for n := range 4 {
		create(fmt.Sprint("web", n))
		select {
		case l := <-out.lines:
			if !strings.Contains(l, fmt.Sprint("web", n)) {
				t.Errorf("line %d is %q", n, l)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("event %d was never shown", n)
		}
		if n == 1 {
			doors[0].Close()
		}
	}
	cancel()
	<-done

	var some bytes.Buffer
	ends := &Events{Follow: true, Since: "1h", Until: time.Now().Add(300 * time.Millisecond).Format(time.RFC3339Nano), Output: "text", Filter: []string{"service=web3", "kind=service"}}
	until := &Session{Client: c, Streams: &output.Streams{Out: output.Stream{Writer: &some}, Err: output.Stream{Writer: &notices}, Now: time.Now}}
	if err := ends.Run(t.Context(), until); err != nil || strings.Count(some.String(), "\n") != 1 {
		t.Errorf("until a time it shows %q, %v", some.String(), err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 4 || notices.Len() > 0 {
		t.Errorf("%d lines were shown:\n%s%s", lines, out.String(), notices.String())
	}
}
