//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/contexts"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
	"github.com/cuemby/warren/test/cluster"
	"github.com/cuemby/warren/test/machine"
)

const (
	// dialAtMost bounds a user's wait for a manager that swallows packets.
	dialAtMost = time.Second
	// pingAfter and pingAtMost find a connection whose other end is out of reach.
	pingAfter  = time.Second
	pingAtMost = time.Second
)

// trio is three machines, each with a manager of one cluster, and a fourth for users who call from afar.
type trio struct {
	t    *testing.T
	ctx  context.Context
	lab  *machine.Lab
	all  []*seat
	afar *machine.Machine
}

// seat is a machine with a manager, and the ways to it: the unix socket, and TLS from afar.
type seat struct {
	*machine.Machine
	here  warrenv1connect.ManagerServiceClient
	local warrenv1connect.ServiceServiceClient
	tls   warrenv1connect.ServiceServiceClient
}

func newTrio(t *testing.T) *trio {
	ctx, binDir := prepare(t)
	ctx, cancel := context.WithTimeout(ctx, storyAtMost)
	lab, err := machine.NewLab(ctx, machine.Options{BinDir: binDir})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			logJournals(ctx, t, lab)
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &trio{t: t, ctx: ctx, lab: lab}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *trio) start() error {
	machines, err := r.lab.BootAll(r.ctx, "m1", "m2", "m3", "m4")
	if err != nil {
		return err
	}
	managers := machines[:3]
	r.afar = machines[3]
	for i, m := range managers {
		if i > 0 {
			if err := cluster.JoinManager(r.ctx, m, managers[0]); err != nil {
				return err
			}
			continue
		}
		if err := cluster.StartManager(r.ctx, m); err != nil {
			return err
		}
		if _, err := m.Run(r.ctx, "warrenctl", "cluster", "init"); err != nil {
			return err
		}
	}
	const file = "/root/context"
	if _, err := managers[0].Run(r.ctx, "warrenctl", "user", "create", "writer", "--role", "operator", "-o", file); err != nil {
		return err
	}
	writer, err := contexts.ReadFile(managers[0].HostPath(file))
	if err != nil {
		return err
	}
	for _, m := range managers {
		r.all = append(r.all, newSeat(m, r.afar, writer.Credentials))
	}
	return nil
}

func newSeat(m, afar *machine.Machine, user *pki.Credentials) *seat {
	local := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: writers,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root/run/warren/manager.sock", m.Leader()))
		},
	}}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	remote := &http.Client{Transport: &http.Transport{
		Protocols: protocols, HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAtMost},
		TLSClientConfig: pki.NewHolder(user).ClientConfig(), TLSHandshakeTimeout: dialAtMost,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialAtMost)
			defer cancel()
			return afar.Dial(ctx, network, addr)
		},
	}}
	return &seat{
		Machine: m,
		here:    warrenv1connect.NewManagerServiceClient(local, "http://manager"),
		local:   warrenv1connect.NewServiceServiceClient(local, "http://manager"),
		tls:     warrenv1connect.NewServiceServiceClient(remote, "https://"+cluster.Addr(m)),
	}
}

// leads tells whether the manager says that it leads.
func (s *seat) leads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dialAtMost)
	defer cancel()
	res, err := s.here.GetManager(ctx, connect.NewRequest(&warrenv1.GetManagerRequest{}))
	return err == nil && res.Msg.GetState() == warrenv1.ManagerState_MANAGER_STATE_LEADING
}

// leader waits for a manager that leads, and returns the other two as well.
func (r *trio) leader() (leader *seat, others []*seat, err error) {
	err = cluster.Await(r.ctx, "a leader", func(ctx context.Context) error {
		leader, others = nil, nil
		for _, s := range r.all {
			if leader == nil && s.leads(ctx) {
				leader = s
			} else {
				others = append(others, s)
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader, others, err
}

// whole waits until every manager can be reached by the leader.
func (r *trio) whole() error {
	return cluster.Await(r.ctx, "all managers", func(ctx context.Context) error {
		said, err := r.all[0].Run(ctx, "warrenctl", "cluster", "info", "--format", "{{.ManagersReachable}}")
		if err == nil && said != "3\n" {
			err = errors.New(said)
		}
		return err
	})
}

// names lists the services that a manager knows of, sorted, and whether the cluster says that they may be
// out of date.
func (s *seat) names(ctx context.Context) (names []string, stale bool, err error) {
	for token := ""; ; {
		res, err := s.local.ListServices(ctx, connect.NewRequest(&warrenv1.ListServicesRequest{PageSize: 1000, PageToken: token}))
		if err != nil {
			return nil, false, err
		}
		stale = stale || res.Header().Get("Warren-Stale") != ""
		for _, entry := range res.Msg.GetServices() {
			names = append(names, entry.GetService().GetSpec().GetName())
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			slices.Sort(names)
			return names, stale, nil
		}
	}
}
