package manager_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/consensus"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// three makes a cluster of three managers, each in a folder of its own.
func three(t *testing.T) []*running {
	t.Helper()
	first := start(t, t.TempDir())
	first.init(t)
	all := []*running{first}
	for range 2 {
		next := start(t, t.TempDir())
		next.join(t, first)
		all = append(all, next)
	}
	return all
}

// join makes a waiting manager one of another's cluster.
func (r *running) join(t testing.TB, other *running) {
	t.Helper()
	if _, err := r.local.JoinManager(t.Context(), connect.NewRequest(&warrenv1.JoinManagerRequest{
		Token: other.token(t, warrenv1.Role_ROLE_MANAGER), Managers: []string{other.manager.Addr().String()},
	})); err != nil {
		t.Fatal(err)
	}
}

func (r *running) token(t testing.TB, role warrenv1.Role) string {
	t.Helper()
	res, err := r.membership.GetJoinToken(t.Context(), connect.NewRequest(&warrenv1.GetJoinTokenRequest{Role: role}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetToken()
}

// await asks again until a condition holds, for as long as an election may take several times over.
func await(t testing.TB, what string, holds func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for {
		err := holds(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func (r *running) members(ctx context.Context) ([]*warrenv1.Manager, error) {
	res, err := r.cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		return nil, err
	}
	return res.Msg.GetManagers(), nil
}

func TestThreeManagersAgreeAndAnyOfThemAnswers(t *testing.T) {
	all := three(t)
	for i, r := range all {
		if _, err := r.services.CreateService(t.Context(), create(fmt.Sprintf("web%d", i), 0)); err != nil {
			t.Errorf("create at manager %d: %v", i, err)
		}
	}
	for i, r := range all {
		members, err := r.members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		voters, leaders := 0, 0
		for _, m := range members {
			if m.GetVoter() && m.GetReachable() && m.GetAddr() != "" && m.GetHostname() != "" {
				voters++
			}
			if m.GetLeader() {
				leaders++
			}
		}
		if voters != 3 || leaders != 1 {
			t.Errorf("manager %d sees %v", i, members)
		}
	}
}

func TestAManagerForWhichThereIsNoPlaceIsNotRemembered(t *testing.T) {
	first := start(t, t.TempDir())
	first.init(t)
	told := func(i int) *statev1.Member {
		return &statev1.Member{Meta: &warrenv1.Meta{Id: fmt.Sprint("m", i)}, Hostname: fmt.Sprint("host", i), Addr: fmt.Sprint("127.0.0.1:", i)}
	}
	for i := 2; i <= consensus.MaxManagers; i++ { // that never answer
		if _, err := first.manager.Enlist(t.Context(), told(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.manager.Enlist(t.Context(), told(8)); !errors.Is(err, consensus.ErrTooMany) {
		t.Errorf("the eighth: %v", err)
	}
	// Else the CA could not be replaced, nor the format raised, without it.
	if id, err := first.manager.Expel(t.Context(), "m8", true, false); err == nil {
		t.Errorf("%s was kept", id)
	}
}

func TestTheLeadersLossIsNoneOfTheUsers(t *testing.T) {
	all := three(t)
	if _, err := all[0].services.CreateService(t.Context(), create("before", 0)); err != nil {
		t.Fatal(err)
	}
	if err := all[0].stop(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	await(t, "the next write", func(ctx context.Context) error {
		_, err := all[1].services.CreateService(ctx, create("after", 0))
		return err
	})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the next write took %v", took)
	}
	for _, name := range []string{"before", "after"} {
		if _, err := all[2].services.GetService(t.Context(), connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name})); err != nil {
			t.Error(err)
		}
	}
}

func TestAManagerThatHasMovedTakesItsPlaceAgain(t *testing.T) {
	first := start(t, t.TempDir())
	first.init(t)
	start(t, t.TempDir()).join(t, first)
	dir := t.TempDir()
	second := start(t, dir)
	second.join(t, first)
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	second = start(t, dir)
	await(t, "the manager is back under its new address", func(ctx context.Context) error {
		if _, err := second.services.CreateService(ctx, create("web", 0)); err != nil && connect.CodeOf(err) != connect.CodeAlreadyExists {
			return err
		}
		members, err := first.members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.GetAddr() == second.manager.Addr().String() && m.GetReachable() {
				return nil
			}
		}
		return fmt.Errorf("the members are %v", members)
	})
}

func TestAManagerLeavesAndJoinsAnew(t *testing.T) {
	all := three(t)
	// The first leads: it hands that over.
	if _, err := all[0].local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{})); err != nil {
		t.Fatal(err)
	}
	if members, err := all[1].members(t.Context()); err != nil || len(members) != 2 {
		t.Fatalf("left behind are %v, %v", members, err)
	}
	if now, err := all[0].local.GetManager(t.Context(), connect.NewRequest(&warrenv1.GetManagerRequest{})); err != nil ||
		now.Msg.GetState() != warrenv1.ManagerState_MANAGER_STATE_WAITING {
		t.Fatalf("it stands as %v, %v", now, err)
	}
	all[0].join(t, all[1])
	if members, err := all[0].members(t.Context()); err != nil || len(members) != 3 {
		t.Errorf("after it came back: %v, %v", members, err)
	}
}

func TestALeaveThatWouldCostTheQuorumNeedsForce(t *testing.T) {
	all := three(t)
	if err := all[2].stop(); err != nil {
		t.Fatal(err)
	}
	await(t, "the loss is seen", func(ctx context.Context) error {
		members, err := all[0].members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if !m.GetReachable() {
				return nil
			}
		}
		return fmt.Errorf("the members are %v", members)
	})
	_, err := all[1].local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("got %v", err)
	}
	if _, err := all[1].services.CreateService(t.Context(), create("web", 0)); err != nil {
		t.Errorf("after the refusal: %v", err)
	}
}

func TestAManagerThatCannotFinishJoiningGivesUpWhenForced(t *testing.T) {
	first := start(t, t.TempDir())
	first.init(t)
	second := start(t, t.TempDir())
	join := func(ctx context.Context, advertise string) error {
		_, err := second.local.JoinManager(ctx, connect.NewRequest(&warrenv1.JoinManagerRequest{
			Token: first.token(t, warrenv1.Role_ROLE_MANAGER), Managers: []string{first.manager.Addr().String()}, AdvertiseAddr: advertise,
		}))
		return err
	}
	if err := join(t.Context(), "0.0.0.0:7420"); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "nobody can reach") {
		t.Errorf("advertised everywhere: %v", err)
	}
	// Nobody is there, so that it waits in vain for the log.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- join(ctx, "127.0.0.1:1") }()
	await(t, "it to be listed", func(ctx context.Context) error {
		members, err := first.members(ctx)
		if err == nil && len(members) != 2 {
			err = fmt.Errorf("the members are %v", members)
		}
		return err
	})
	cancel()
	<-done
	_, err := second.local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "on its way into a cluster") {
		t.Errorf("without force: %v", err)
	}
	if _, err := second.local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{Force: true})); err != nil {
		t.Error(err)
	}
	// Where it was to be is forgotten as well; and one address is one manager's.
	if err := join(t.Context(), "127.0.0.1:1"); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "take it out with `warrenctl manager rm") {
		t.Errorf("where it is listed already: %v", err)
	}
	if _, err := second.local.LeaveManager(t.Context(), connect.NewRequest(&warrenv1.LeaveManagerRequest{Force: true})); err != nil {
		t.Error(err)
	}
	members, err := first.members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.GetAddr() == "127.0.0.1:1" {
			if _, err := first.membership.DeleteManager(t.Context(), connect.NewRequest(&warrenv1.DeleteManagerRequest{Ref: m.GetId(), Force: true})); err != nil {
				t.Error(err)
			}
		}
	}
	if err := join(t.Context(), ""); err != nil {
		t.Errorf("joining anew: %v", err)
	}
}

func TestOneSurvivorRecoversTheCluster(t *testing.T) {
	all := three(t)
	if _, err := all[0].services.CreateService(t.Context(), create("web", 0)); err != nil {
		t.Fatal(err)
	}
	await(t, "the survivor knows all", func(ctx context.Context) error {
		_, err := all[2].services.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: "web"}))
		return err
	})
	for _, r := range all[:2] {
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := all[2].local.RecoverManager(t.Context(), connect.NewRequest(&warrenv1.RecoverManagerRequest{Force: true})); err != nil {
		t.Fatal(err)
	}
	if _, err := all[2].services.CreateService(t.Context(), create("after", 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := all[2].services.GetService(t.Context(), connect.NewRequest(&warrenv1.GetServiceRequest{Ref: "web"})); err != nil {
		t.Error(err)
	}
	if members, err := all[2].members(t.Context()); err != nil || len(members) != 1 {
		t.Errorf("members: %v, %v", members, err)
	}
}

func TestAManagerKilledWhileItJoinsGoesOnWhenItIsBack(t *testing.T) {
	first := start(t, t.TempDir())
	first.init(t)
	dir := t.TempDir()
	second := start(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	token, addr := first.token(t, warrenv1.Role_ROLE_MANAGER), first.manager.Addr().String()
	// The leader is gone by the time the second step is due.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = second.local.JoinManager(ctx, connect.NewRequest(&warrenv1.JoinManagerRequest{Token: token, Managers: []string{addr}}))
	}()
	await(t, "the first step", func(context.Context) error {
		found, err := filepath.Glob(filepath.Join(dir, "data", "identity.pem"))
		if err == nil && len(found) == 0 {
			err = errors.New("no certificate")
		}
		return err
	})
	cancel()
	<-done
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	second = start(t, dir)
	await(t, "it votes", func(ctx context.Context) error {
		members, err := first.members(ctx)
		if err != nil {
			return err
		}
		if len(members) != 2 || !members[0].GetVoter() || !members[1].GetVoter() {
			return fmt.Errorf("the members are %v", members)
		}
		return nil
	})
}
