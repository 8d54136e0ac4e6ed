package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/cuemby/warren/test/image"
	"github.com/cuemby/warren/test/machine"
)

// swarm is Docker Swarm on machines of their own, which Debian's docker.io is installed on and which are booted by systemd:
// a manager that has tasks too, and workers. What it is asked, and when, is as near to what Warren is asked as the two
// allow.
//
// Its services are on an overlay network of Swarm's, and found by DNS alone (endpoint mode dnsrr): virtual addresses and
// the ingress network need IPVS, which not every kernel has.
type swarm struct {
	lab      *machine.Lab
	machines []*machine.Machine // the first is the manager
	clients  []*http.Client     // of the engines on them
	image    string             // by its id, which no engine asks a registry for
	network  string
}

// swarmVersion is the version of the engine's API that Debian 12 has.
const swarmVersion = "/v1.41"

// onSwarm is a measurement of Swarm, which is made ready at the first.
func onSwarm(measure func(context.Context, *bench, *swarm) error) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) (err error) {
		if b.swarmRoot == "" {
			fmt.Println("  left out: asked for by -swarm, or make bench SWARM=1")
			return nil
		}
		if b.swarm == nil {
			if b.swarm, err = startSwarm(ctx, b.swarmRoot); err != nil {
				return fmt.Errorf("start swarm: %w", err)
			}
		}
		return measure(ctx, b, b.swarm)
	}
}

func startSwarm(ctx context.Context, root string) (*swarm, error) {
	lab, err := machine.NewLab(ctx, machine.Options{Root: root})
	if err != nil {
		return nil, err
	}
	s := &swarm{lab: lab}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// prepare boots the machines, gives all of them the image and joins them.
func (s *swarm) prepare(ctx context.Context) (err error) {
	if s.machines, err = s.lab.BootAll(ctx, "swarm1", "swarm2", "swarm3"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "warren-bench-swarm-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	images, err := image.Build(ctx, "1")
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "hello.tar")
	if err := image.Save(images["1"], "hello:1", archive); err != nil {
		return err
	}
	var join map[string]any
	for i, m := range s.machines {
		s.clients = append(s.clients, engineOf(m))
		if err := s.load(ctx, i, archive); err != nil {
			return err
		}
		address := m.IP().String()
		if i == 0 {
			if join, err = s.initialize(ctx, address); err != nil {
				return err
			}
			continue
		}
		join["AdvertiseAddr"] = address
		if err := s.call(ctx, i, http.MethodPost, "/swarm/join", join, nil); err != nil {
			return err
		}
	}
	var inspected struct{ ID string }
	if err := s.ask(ctx, "/images/hello:1/json", &inspected); err != nil {
		return err
	}
	s.image = inspected.ID
	var network struct{ ID string }
	err = s.call(ctx, 0, http.MethodPost, "/networks/create", map[string]any{
		"Name": "bench", "Driver": "overlay",
		"IPAM": map[string]any{"Config": []map[string]string{{"Subnet": "10.200.0.0/20"}}},
	}, &network)
	s.network = network.ID
	return errors.Join(err, s.ready(ctx))
}

// initialize makes the first machine a manager, and returns what the others join with.
func (s *swarm) initialize(ctx context.Context, address string) (map[string]any, error) {
	request := map[string]any{"AdvertiseAddr": address, "ListenAddr": "0.0.0.0:2377"}
	if err := s.call(ctx, 0, http.MethodPost, "/swarm/init", request, nil); err != nil {
		return nil, err
	}
	var state struct{ JoinTokens struct{ Worker string } }
	err := s.ask(ctx, "/swarm", &state)
	return map[string]any{
		"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": []string{address + ":2377"}, "JoinToken": state.JoinTokens.Worker,
	}, err
}

// engineOf speaks with a machine's engine, by its socket as the machine's process 1 sees it.
func engineOf(m *machine.Machine) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root/run/docker.sock", m.Leader()))
	}}}
}

func (s *swarm) load(ctx context.Context, engine int, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	return s.send(ctx, engine, http.MethodPost, "/images/load", file, nil)
}

// ask asks the manager.
func (s *swarm) ask(ctx context.Context, path string, answer any) error {
	return s.call(ctx, 0, http.MethodGet, path, nil, answer)
}

func (s *swarm) call(ctx context.Context, engine int, method, path string, body, answer any) error {
	if body == nil {
		return s.send(ctx, engine, method, path, nil, answer)
	}
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return s.send(ctx, engine, method, path, bytes.NewReader(content), answer)
}

func (s *swarm) send(ctx context.Context, engine int, method, path string, body io.Reader, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://engine"+swarmVersion+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.clients[engine].Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
	case response.StatusCode >= http.StatusBadRequest:
		err = fmt.Errorf("%s", bytes.TrimSpace(content))
	case answer != nil:
		err = json.Unmarshal(content, answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s of %s: %w", method, path, s.machines[engine].Name(), err)
	}
	return nil
}

// filtered is a path that lists what has that value under that key.
func filtered(path, key, value string) string {
	filters, _ := json.Marshal(map[string][]string{key: {value}}) // cannot fail
	return path + "?filters=" + url.QueryEscape(string(filters))
}

type swarmNode struct {
	ID          string
	Version     struct{ Index int }
	Spec        map[string]any
	Description struct{ Hostname string }
	Status      struct{ State string }
}

func (s *swarm) node(ctx context.Context, hostname string) (swarmNode, error) {
	var nodes []swarmNode
	if err := s.ask(ctx, "/nodes", &nodes); err != nil {
		return swarmNode{}, err
	}
	for _, n := range nodes {
		if n.Description.Hostname == hostname {
			return n, nil
		}
	}
	return swarmNode{}, fmt.Errorf("swarm has no node %s", hostname)
}

// makeAvailable sets a node's availability: active, pause or drain.
func (s *swarm) makeAvailable(ctx context.Context, hostname, availability string) error {
	n, err := s.node(ctx, hostname)
	if err != nil {
		return err
	}
	n.Spec["Availability"] = availability
	return s.call(ctx, 0, http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
}

// ready waits until all nodes are.
func (s *swarm) ready(ctx context.Context) error {
	return s.until(ctx, "all of Swarm's nodes are ready", func() (bool, error) {
		for _, m := range s.machines {
			if n, err := s.node(ctx, m.Name()); err != nil || n.Status.State != "ready" {
				return false, nil //nolint:nilerr // not yet
			}
		}
		return true, nil
	})
}

// until asks every few milliseconds: Swarm tells nobody how far a service has come.
func (s *swarm) until(ctx context.Context, what string, done func() (bool, error)) error {
	deadline := time.Now().Add(3 * time.Minute)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited three minutes in vain until %s", what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *swarm) close() error {
	for _, c := range s.clients {
		c.CloseIdleConnections()
	}
	return s.lab.Close()
}
