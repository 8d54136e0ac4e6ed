package progress

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
	"github.com/cuemby/warren/internal/ctl/fakemanager"
	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestLookingOnGoesOnAtAnotherManagerWithoutAWord(t *testing.T) {
	dir, err := os.MkdirTemp("", "p") //nolint:usetesting // short: it becomes a socket's path
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
	mine, err := m.Credentials(warrenv1.Role_ROLE_OPERATOR, "ann")
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
	made, err := c.Services.CreateService(t.Context(), connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: &warrenv1.ServiceSpec{
		Name: "web", Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 2}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "slow"}},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	meta := made.Msg.GetService().GetMeta()

	// The first picture says that the stream is there: then its manager goes, and the tasks run.
	seen := &watched{says: "0/2 running", then: func() {
		doors[0].Close()
		m.Release()
	}}
	s := &output.Streams{Err: output.Stream{Writer: seen}, Now: time.Now}
	err = Follow(t.Context(), c, s, []Target{{Name: "web", ID: meta.GetId(), Version: meta.GetVersion()}}, Limits{Monitor: time.Millisecond, Timeout: 20 * time.Second})
	if err != nil || !strings.Contains(seen.String(), "2/2 running, done") {
		t.Errorf("ended with %v after\n%s", err, seen.String())
	}
	if strings.Contains(seen.String(), "trying again") || doors[1].Calls() == 0 {
		t.Errorf("it was told, or nothing had happened:\n%s", seen.String())
	}
}

// watched does something once it has been written a text.
type watched struct {
	bytes.Buffer
	says string
	then func()
}

func (w *watched) Write(b []byte) (int, error) {
	if w.then != nil && bytes.Contains(b, []byte(w.says)) {
		w.then()
		w.then = nil
	}
	return w.Buffer.Write(b)
}
