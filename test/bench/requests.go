package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	callers       = 4 // of each kind
	answerAtMost  = 5 * time.Second
	replicas      = 4
	webPort       = 8080
	failuresShown = 3 // of each run
)

// measureFailedRequests has a service under load while it is updated, scaled, moved by draining its nodes, and while
// another is removed, each again and again for as long as the flag -load says. The load comes from a container on a
// node that has no task of the service, to its VIP: callers that keep their connections and callers that open one for
// each request, each asking again as soon as it is answered.
//
// A request has failed when Go's HTTP client says so, or the answer is not a whole 200. That client asks again, as RFC
// 9110 (9.2.2) lets it, if a connection it had kept was closed before any of the answer had come.
func measureFailedRequests(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, maxNodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	from, err := c.caller(ctx, b.machine.image)
	if err != nil {
		return err
	}
	if err := c.create(ctx, served("web", b.machine.image)); err != nil {
		return err
	}
	if err := c.converged(ctx, "web"); err != nil {
		return err
	}
	url, err := c.url(ctx, "web")
	if err != nil {
		return err
	}
	failed, asked := 0, 0
	for _, run := range []struct {
		name   string
		change func(context.Context, string) error
	}{
		{"update", c.forceUpdate}, {"scale", c.scaleBack}, {"drain", c.drainInTurn}, {"rm", c.removeOther},
	} {
		l := &load{url: url, from: from}
		changes, err := l.during(ctx, b.load, func(ctx context.Context) error { return run.change(ctx, b.machine.image) })
		if err != nil {
			return fmt.Errorf("%s: %w", run.name, err)
		}
		b.row("failed_requests_"+run.name, float64(l.failed.Load()), "", fmt.Sprintf("of %d while it was changed %d times in %v", l.asked.Load(), changes, b.load))
		for _, f := range l.failures {
			fmt.Println("    ", f)
		}
		failed, asked = failed+int(l.failed.Load()), asked+int(l.asked.Load())
	}
	if err := c.clean(ctx, "web", "caller"); err != nil {
		return err
	}
	b.row("failed_requests", float64(failed), "", fmt.Sprintf("of %d in all", asked))
	return nil
}

// callerNode has the container of the load and none of the service.
const callerNode = "node-3"

// caller runs the container that the load comes from.
func (c *cluster) caller(ctx context.Context, image string) (netns.NsHandle, error) {
	s := spec("caller", image, 1)
	s.Placement = &warrenv1.Placement{Constraints: []string{"node.hostname == " + callerNode}}
	if err := c.create(ctx, s); err != nil {
		return -1, err
	}
	if err := c.converged(ctx, "caller"); err != nil {
		return -1, err
	}
	tasks, err := c.placed(ctx, "caller")
	if err != nil {
		return -1, err
	}
	if len(tasks[callerNode]) != 1 {
		return -1, errors.New("not exactly one caller runs")
	}
	return tasks[callerNode][0].ns, nil
}

// served is a service that answers requests, on all nodes but the load's.
func served(name, image string) *warrenv1.ServiceSpec {
	s := spec(name, image, replicas)
	s.Task.Container.Args = []string{"serve"}
	s.Placement = &warrenv1.Placement{Constraints: []string{"node.hostname != " + callerNode}}
	s.Endpoint = &warrenv1.EndpointSpec{Ports: []*warrenv1.PortSpec{{Target: webPort}}}
	// What is measured is the changes: the more of them the better.
	s.Update = &warrenv1.UpdatePolicy{Monitor: durationpb.New(0)}
	return s
}

// forceUpdate replaces all tasks.
func (c *cluster) forceUpdate(ctx context.Context, _ string) error {
	return c.forceUpdateOf(ctx, "web")
}

// scaleBack scales down and up again.
func (c *cluster) scaleBack(ctx context.Context, _ string) error {
	for _, n := range []uint32{replicas / 2, replicas} {
		if err := c.scale(ctx, "web", n); err != nil {
			return err
		}
		if err := c.converged(ctx, "web"); err != nil {
			return err
		}
	}
	return nil
}

// drainInTurn drains each node that has tasks, and makes it active again.
func (c *cluster) drainInTurn(ctx context.Context, _ string) error {
	for _, node := range []string{"node-1", "node-2"} {
		for _, availability := range []warrenv1.NodeAvailability{warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN, warrenv1.NodeAvailability_NODE_AVAILABILITY_ACTIVE} {
			if err := c.makeAvailable(ctx, node, availability); err != nil {
				return err
			}
			if availability == warrenv1.NodeAvailability_NODE_AVAILABILITY_DRAIN {
				if err := c.vacated(ctx, node, "web"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// vacated waits until nothing is left on a node of any service, and all of the service runs elsewhere.
func (c *cluster) vacated(ctx context.Context, node, service string) error {
	deadline := time.Now().Add(time.Minute)
	for {
		res, err := c.nodes.GetNode(ctx, connect.NewRequest(&warrenv1.GetNodeRequest{Ref: node}))
		if err != nil {
			return err
		}
		left := res.Msg.GetEntry().GetTasks()
		if left == 0 {
			return c.converged(ctx, service)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d tasks are on %s still after a minute", left, node)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// removeOther makes another service and removes it.
func (c *cluster) removeOther(ctx context.Context, image string) error {
	if err := c.create(ctx, served("other", image)); err != nil {
		return err
	}
	if err := c.converged(ctx, "other"); err != nil {
		return err
	}
	return c.remove(ctx, "other")
}

// load is requests without end.
type load struct {
	url      string
	from     netns.NsHandle
	resolver *net.Resolver // of the name in the URL, where it has one

	asked, failed atomic.Int64
	mu            sync.Mutex
	failures      []string // the first
}

// during calls change again and again while there is load, for a while, and counts its calls.
func (l *load) during(ctx context.Context, d time.Duration, change func(context.Context) error) (changes int, err error) {
	ending := make(chan struct{})
	var group errgroup.Group
	for i := range 2 * callers {
		group.Go(func() error { l.ask(ctx, ending, i%2 == 0); return nil })
	}
	for begin := time.Now(); time.Since(begin) < d && err == nil; {
		if err = change(ctx); err == nil {
			changes++
		}
	}
	close(ending)
	return changes, errors.Join(err, group.Wait())
}

// ask is one caller.
func (l *load) ask(ctx context.Context, ending <-chan struct{}, keep bool) {
	transport := &http.Transport{DisableKeepAlives: !keep, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return l.dial(ctx, addr)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: answerAtMost}
	for {
		select {
		case <-ending:
			return
		case <-ctx.Done():
			return
		default:
		}
		begin := time.Now()
		l.asked.Add(1)
		if err := askOnce(ctx, client, l.url); err != nil && ctx.Err() == nil {
			l.fail(fmt.Sprintf("kept %v, after %v: %v", keep, time.Since(begin).Round(time.Millisecond), err))
		}
	}
}

func (l *load) dial(ctx context.Context, addr string) (net.Conn, error) {
	if l.resolver != nil {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		found, err := l.resolver.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		addr = net.JoinHostPort(found[rand.IntN(len(found))], port)
	}
	return dial(ctx, l.from, addr)
}

func (l *load) fail(failure string) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < failuresShown {
		l.failures = append(l.failures, failure)
	}
}

func askOnce(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !strings.HasSuffix(string(body), "\n") {
		return fmt.Errorf("%s: %.80q", response.Status, body)
	}
	return nil
}
