package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	managers    = 3
	leaderKills = 20
)

// measureFailover makes a cluster of three managers on this machine, counts creates, and kills the leader
// again and again: what counts is the time from the kill until the next write has succeeded, asked of one of
// the managers that are left as a user would.
func measureFailover(ctx context.Context, b *bench) (err error) {
	t := &trio{bench: b}
	defer func() { err = errors.Join(err, t.close()) }()
	joins, err := t.start(ctx)
	if err != nil {
		return err
	}
	b.row("join_ms", milliseconds(median(joins)), "ms", "from the token to a manager that votes")
	rate, err := t.creates(ctx)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("creates_per_s_3m_%d", maxCallers), rate, "/s", "service creates, durable on two of three managers, over the leader's unix socket")
	var took []time.Duration
	for round := range leaderKills {
		d, err := t.killLeader(ctx, fmt.Sprintf("failover-%d", round))
		if err != nil {
			return fmt.Errorf("leader kill %d: %w", round, err)
		}
		took = append(took, d)
	}
	b.row("leader_failover_ms", milliseconds(median(took)), "ms", fmt.Sprintf("from the leader's kill -9 to the next write, median of %d", leaderKills))
	worst := took[0]
	for _, d := range took {
		worst = max(worst, d)
	}
	b.row("leader_failover_worst_ms", milliseconds(worst), "ms", "the worst of them")
	return nil
}

// trio is three managers.
type trio struct {
	bench *bench
	all   []*seat
}

// seat is one of them, over its restarts.
type seat struct {
	dir, addr string
	process   *process // nil while it is killed
	http      *http.Client
	services  warrenv1connect.ServiceServiceClient
	cluster   warrenv1connect.ClusterServiceClient
	members   warrenv1connect.MembershipServiceClient
	local     warrenv1connect.ManagerServiceClient
}

func (t *trio) start(ctx context.Context) (joins []time.Duration, err error) {
	for i := range managers {
		s, err := newSeat()
		if err != nil {
			return nil, err
		}
		t.all = append(t.all, s)
		if err := s.start(ctx, t.bench.bin); err != nil {
			return nil, err
		}
		if i == 0 {
			if _, err := s.cluster.InitCluster(ctx, connect.NewRequest(&warrenv1.InitClusterRequest{})); err != nil {
				return nil, err
			}
			continue
		}
		token, err := t.all[0].members.GetJoinToken(ctx, connect.NewRequest(&warrenv1.GetJoinTokenRequest{Role: warrenv1.Role_ROLE_MANAGER}))
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		if _, err := s.local.JoinManager(ctx, connect.NewRequest(&warrenv1.JoinManagerRequest{
			Token: token.Msg.GetToken(), Managers: []string{t.all[0].addr},
		})); err != nil {
			return nil, err
		}
		joins = append(joins, time.Since(begin))
	}
	return joins, nil
}

func newSeat() (*seat, error) {
	dir, err := os.MkdirTemp("", "warren-bench-manager-")
	if err != nil {
		return nil, err
	}
	s := &seat{dir: dir}
	if s.addr, err = freeAddress(); err != nil {
		return nil, err
	}
	s.http = unixClient(filepath.Join(dir, "manager.sock"))
	plain := connect.WithAcceptCompression("gzip", nil, nil) // as warrenctl does on the socket
	s.services = warrenv1connect.NewServiceServiceClient(s.http, "http://manager", plain)
	s.cluster = warrenv1connect.NewClusterServiceClient(s.http, "http://manager", plain)
	s.members = warrenv1connect.NewMembershipServiceClient(s.http, "http://manager", plain)
	s.local = warrenv1connect.NewManagerServiceClient(s.http, "http://manager", plain)
	return s, nil
}

func (s *seat) start(ctx context.Context, bin string) (err error) {
	s.process, err = start(s.dir, filepath.Join(bin, "warren-manager"),
		"--data-dir", filepath.Join(s.dir, "data"), "--socket", filepath.Join(s.dir, "manager.sock"), "--listen-addr", s.addr)
	if err != nil {
		return err
	}
	return until(ctx, "the manager answers", func() (bool, error) {
		_, err := s.cluster.GetVersion(ctx, connect.NewRequest(&warrenv1.GetVersionRequest{}))
		return err == nil, nil
	})
}

func (s *seat) create(ctx context.Context, name string) error {
	_, err := s.services.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: hostSpec(name, "hello:1", 0)}))
	return err
}

// creates counts service creates per second at the first manager, which leads.
func (t *trio) creates(ctx context.Context) (float64, error) {
	var serial atomic.Int64
	var group errgroup.Group
	begin := time.Now()
	for range maxCallers {
		group.Go(func() error {
			for time.Since(begin) < createTime {
				if err := t.all[0].create(ctx, fmt.Sprintf("api-%d", serial.Add(1))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return float64(serial.Load()) / time.Since(begin).Seconds(), err
}

// killLeader kills the manager that leads, and returns how long the next write took. Then it has the killed
// one back.
func (t *trio) killLeader(ctx context.Context, name string) (time.Duration, error) {
	leader, other, err := t.leader(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := leader.process.command.Process.Kill(); err != nil {
		return 0, err
	}
	for {
		err := other.create(ctx, name)
		if err == nil || connect.CodeOf(err) == connect.CodeAlreadyExists { // the answer was lost, the write was not
			break
		}
		if connect.CodeOf(err) != connect.CodeUnavailable || ctx.Err() != nil {
			return 0, err
		}
	}
	took := time.Since(begin)
	if err := leader.process.stop(); err != nil {
		return 0, err
	}
	leader.http.CloseIdleConnections()
	if err := leader.start(ctx, t.bench.bin); err != nil {
		return 0, err
	}
	return took, until(ctx, "all managers are reachable", func() (bool, error) {
		res, err := other.cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
		return err == nil && res.Msg.GetManagersReachable() == managers, nil
	})
}

// leader returns the manager that leads, and one that does not.
func (t *trio) leader(ctx context.Context) (leader, other *seat, err error) {
	for _, s := range t.all {
		now, err := s.local.GetManager(ctx, connect.NewRequest(&warrenv1.GetManagerRequest{}))
		if err != nil {
			return nil, nil, err
		}
		if now.Msg.GetState() == warrenv1.ManagerState_MANAGER_STATE_LEADING {
			leader = s
		} else {
			other = s
		}
	}
	if leader == nil || other == nil {
		return nil, nil, errors.New("nobody leads")
	}
	return leader, other, nil
}

func (t *trio) close() error {
	var errs []error
	for _, s := range t.all {
		if s.process != nil {
			errs = append(errs, s.process.stop())
		}
		s.http.CloseIdleConnections()
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
