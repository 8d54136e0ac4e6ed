package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// probed has a task probed every 10 s.
func probed(change ...func(*warrenv1.HealthCheck)) func(*warrenv1.Assignment) {
	return func(a *warrenv1.Assignment) {
		a.Spec.Health = &warrenv1.HealthCheck{
			Probe: &warrenv1.HealthCheck_Tcp{Tcp: &warrenv1.TcpProbe{Port: 80}}, Interval: durationpb.New(10 * time.Second),
		}
		for _, f := range change {
			f(a.Spec.Health)
		}
	}
}

// withdrawing leaves an unhealthy task running.
func withdrawing(h *warrenv1.HealthCheck) {
	h.OnFailure = warrenv1.UnhealthyAction_UNHEALTHY_ACTION_WITHDRAW
}

func (n *node) expectHealth(id string, want warrenv1.HealthState) *warrenv1.TaskHealth {
	n.t.Helper()
	health := n.reported[id].GetHealth()
	if health.GetState() != want {
		n.t.Fatalf("the health of task %s is %v, want %v", id, health, want)
	}
	return health
}

// kinds are those of what befell a task.
func kinds(s *warrenv1.TaskStatus) []warrenv1.IncidentKind {
	var all []warrenv1.IncidentKind
	for _, i := range s.GetIncidents() {
		all = append(all, i.GetKind())
	}
	return all
}

const (
	exitKind      = warrenv1.IncidentKind_INCIDENT_KIND_EXIT
	unhealthyKind = warrenv1.IncidentKind_INCIDENT_KIND_UNHEALTHY
	healthyKind   = warrenv1.IncidentKind_INCIDENT_KIND_HEALTHY
	rejectedKind  = warrenv1.IncidentKind_INCIDENT_KIND_REJECTED
)

func TestAProbedTaskServesOnlyWhenItListensAndIsHealthy(t *testing.T) {
	for _, listensFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t)
			n.declare("a")
			n.runtime.sicken("a-1", "connection refused")
			n.assign(assignment("a", overlaid, probed()))
			n.expect("a", 1, running)
			n.expectServing("a", false, "runs, but is not healthy yet: connection refused")
			n.expectHealth("a", healthStarting)
			if listensFirst {
				n.listen("a-1")
				n.expectServing("a", false, "runs, but is not healthy yet: connection refused")
				n.runtime.sicken("a-1", "")
				n.pass(time.Second)
			} else {
				n.runtime.sicken("a-1", "")
				n.pass(3 * time.Second)
				n.expectHealth("a", healthHealthy)
				n.expectServing("a", false, "runs, but does not listen on 8080/tcp yet")
				n.listen("a-1")
			}
			n.expectServing("a", true, "")
			n.expectHealth("a", healthHealthy)
		})
	}
}

func TestATaskThatIsHealthyAtOnceServesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid, probed()))
		n.expectServing("a", true, "")
		n.expectCalls("withdraw a", "attach a", "serve a")
	})
}

func TestTasksOnOtherNetworksServeWhenTheyAreHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		none := func(a *warrenv1.Assignment) { a.Spec.Network = warrenv1.NetworkMode_NETWORK_MODE_NONE }
		n.runtime.sicken("a-1", "not yet")
		n.runtime.sicken("b-1", "not yet")
		n.assign(assignment("a", probed()), assignment("b", probed(), none))
		for _, id := range []string{"a", "b"} {
			if status := n.expect(id, 1, running); status.GetServing() || status.GetMessage() != "runs, but is not healthy yet: not yet" {
				t.Errorf("%v", status)
			}
		}
		n.runtime.sicken("a-1", "")
		n.runtime.sicken("b-1", "")
		n.pass(time.Second)
		for _, id := range []string{"a", "b"} {
			if status := n.expect(id, 1, running); !status.GetServing() || status.GetMessage() != "" {
				t.Errorf("%v", status)
			}
		}
		n.expectCalls()
	})
}

func TestAnUnhealthyTaskIsWithdrawnAtOnceAndRestartedAsIfItHadFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stubborn = true
		grace := func(a *warrenv1.Assignment) { a.Spec.Container.StopGracePeriod = durationpb.New(30 * time.Second) }
		n.assign(assignment("a", overlaid, probed(), grace, policy(&warrenv1.RestartPolicy{Delay: durationpb.New(time.Hour)})))
		n.expectServing("a", true, "")
		n.runtime.sicken("a-1", "status 503")
		n.pass(40 * time.Second) // three intervals, and their jitter
		n.expect("a", 1, running)
		n.expectServing("a", false, "is unhealthy: it is being stopped, and its restart policy says what follows")
		if h := n.expectHealth("a", healthUnhealthy); h.GetFailures() != 3 || h.GetOutput() != "status 503" {
			t.Errorf("%v", h)
		}
		if got, want := n.runtime.signalled(), []syscall.Signal{syscall.SIGTERM}; !slices.Equal(got, want) {
			t.Errorf("it got %v, want %v", got, want)
		}
		n.pass(30 * time.Second)
		status := n.expect("a", 2, starting)
		const why = "unhealthy: 3 probes in a row failed, the last: status 503"
		if status.GetError() != why || status.GetExit().GetCode() != 137 || status.GetHealth() != nil || status.GetMessage() != "restarts in 1h" {
			t.Errorf("%v", status)
		}
		if got, want := kinds(status), []warrenv1.IncidentKind{unhealthyKind}; !slices.Equal(got, want) || status.GetIncidents()[0].GetMessage() != why {
			t.Errorf("incidents %v", status.GetIncidents())
		}
		n.pass(time.Hour)
		n.expect("a", 2, running)
		n.expectServing("a", true, "")
		n.expectContainers("a-2")
	})
}

func TestAnUnhealthyProgramHasFailedAlsoWhereItEndsWithExitCode0(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.sicken("a-1", "deadlock")
		n.runtime.stubborn = true
		n.assign(assignment("a", probed(), policy(&warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE})))
		n.pass(31 * time.Second)
		n.expectHealth("a", healthUnhealthy)
		n.runtime.end("a-1", 0, false)
		n.settle()
		if got := n.expect("a", 1, failedEnd).GetError(); !strings.Contains(got, "deadlock") {
			t.Errorf("error %q", got)
		}
	})
}

func TestATaskBecomesUnhealthyNoSoonerThanItsIntervalsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.sicken("a-1", "no")
		n.assign(assignment("a", overlaid, probed(withdrawing, func(h *warrenv1.HealthCheck) { h.StartPeriod = durationpb.New(time.Minute) })))
		n.pass(90*time.Second - time.Millisecond)
		n.expectHealth("a", healthStarting)
		n.pass(time.Millisecond)
		n.expectHealth("a", healthUnhealthy)
	})
}

func TestATaskThatIsLeftRunningServesAgainWhenItIsHealthyAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.declare("a")
		n.assign(assignment("a", overlaid, probed(withdrawing)))
		n.listen("a-1")
		n.expectServing("a", true, "")
		n.runtime.sicken("a-1", "status 503")
		n.pass(40 * time.Second)
		n.expectServing("a", false, "runs, but is unhealthy: status 503")
		n.pass(time.Hour)
		n.expect("a", 1, running)
		n.runtime.sicken("a-1", "")
		n.pass(11 * time.Second)
		n.expectServing("a", true, "")
		status := n.expect("a", 1, running)
		if got, want := kinds(status), []warrenv1.IncidentKind{unhealthyKind, healthyKind}; !slices.Equal(got, want) ||
			!strings.HasPrefix(status.GetIncidents()[1].GetMessage(), "healthy again after 1h0m") {
			t.Errorf("incidents %v", status.GetIncidents())
		}
		if got := n.runtime.signalled(); len(got) > 0 {
			t.Errorf("it got %v", got)
		}
	})
}

func TestProbesThatFindNothingNewAreNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid, probed()))
		n.pass(time.Minute)
		for range 10 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if reports := n.supervisor.Outbox().Take(10); len(reports) > 0 {
				t.Fatalf("reported: %v", reports)
			}
		}
		if n.runtime.probed["a-1"] < 60 {
			t.Errorf("probed %d times", n.runtime.probed["a-1"])
		}
	})
}

func TestARestartedAgentGoesOnWithWhatItKnewOfATasksHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		slow := probed(withdrawing, func(h *warrenv1.HealthCheck) { h.StartPeriod = durationpb.New(time.Minute) })
		n.runtime.sicken("ill-1", "no")
		n.runtime.sicken("new-1", "no")
		n.assign(assignment("well", overlaid, probed()), assignment("ill", overlaid, probed(withdrawing)), assignment("new", overlaid, slow), assignment("host", probed()))
		n.pass(50 * time.Second)
		n.expectHealth("ill", healthUnhealthy)
		n.kill()
		n.network.take()
		n.network.setUp(false)
		before := n.runtime.probed["well-1"]
		n.start()
		n.expectServing("well", true, "")
		n.expectServing("ill", false, "runs, but is unhealthy: no")
		n.expectServing("new", false, "runs, but is not healthy yet: no")
		if !n.reported["host"].GetServing() {
			t.Error("a healthy task of the host's network does not serve")
		}
		if n.runtime.probed["well-1"] != before {
			t.Error("it was probed before it was seen to go on")
		}
		n.network.setUp(true)
		n.settle()
		if calls := n.network.take(); slices.Contains(calls, "withdraw well") || !slices.Contains(calls, "serve well") || slices.Contains(calls, "serve ill") {
			t.Errorf("calls %q", calls)
		}
		n.pass(40*time.Second - time.Millisecond) // a minute, and three intervals, since its program began
		n.expectHealth("new", healthStarting)
		n.pass(time.Millisecond)
		n.expectHealth("new", healthUnhealthy)
		n.runtime.sicken("ill-1", "")
		n.pass(11 * time.Second)
		n.expectServing("ill", true, "")
	})
}

func TestARestartedAgentEndsWhatIsUnhealthy(t *testing.T) {
	for name, endsMeanwhile := range map[string]bool{"runs on": false, "ends while no agent is there": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t)
				n.runtime.stubborn = true
				n.runtime.sicken("a-1", "deadlock")
				n.assign(assignment("a", overlaid, probed()))
				n.pass(31 * time.Second)
				n.expectHealth("a", healthUnhealthy)
				n.kill()
				if endsMeanwhile {
					n.runtime.end("a-1", 0, false)
				}
				n.start()
				n.pass(defaultStopGrace + time.Second)
				status := n.expect("a", 2, running)
				if !strings.HasPrefix(status.GetError(), "unhealthy: 3 probes in a row failed") {
					t.Errorf("error %q", status.GetError())
				}
				if got, want := kinds(status), []warrenv1.IncidentKind{unhealthyKind}; !slices.Equal(got, want) {
					t.Errorf("incidents %v", status.GetIncidents())
				}
			})
		})
	}
}

func TestATaskThatIsToStopIsProbedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stubborn = true
		health := probed()
		grace := func(a *warrenv1.Assignment) { a.Spec.Container.StopGracePeriod = durationpb.New(10 * time.Minute) }
		n.assign(assignment("a", overlaid, health, grace))
		n.assign(assignment("a", overlaid, health, grace, desired(wantShutdown)))
		n.pass(time.Second)
		before := n.runtime.probed["a-1"]
		n.runtime.sicken("a-1", "closed")
		n.pass(9 * time.Minute)
		n.expect("a", 1, stopping)
		if n.runtime.probed["a-1"] != before {
			t.Errorf("it was probed %d times more", n.runtime.probed["a-1"]-before)
		}
		n.pass(2 * time.Minute)
		if status := n.expect("a", 1, shutdown); status.GetHealth() != nil || len(status.GetIncidents()) > 0 {
			t.Errorf("%v", status)
		}
	})
}

func TestAnUnhealthyTaskThatIsNotWantedAnyMoreIsShutDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.stubborn = true
		n.runtime.sicken("a-1", "deadlock")
		n.assign(assignment("a", overlaid, probed()))
		n.pass(31 * time.Second)
		n.assign(assignment("a", overlaid, probed(), desired(wantShutdown)))
		n.pass(defaultStopGrace)
		n.expect("a", 1, shutdown)
		n.expectAttached()
	})
}

func TestAnImagesHealthcheckIsHeldToUnlessTheTemplateSaysOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.checks["img"] = &warrenv1.HealthCheck{
			Probe: &warrenv1.HealthCheck_Exec{Exec: &warrenv1.ExecProbe{Command: []string{"check"}}},
		}
		for _, id := range []string{"a", "b", "c"} {
			n.runtime.sicken(id+"-1", "no")
		}
		n.assign(
			assignment("a"),
			assignment("b", func(a *warrenv1.Assignment) { a.Spec.Health = &warrenv1.HealthCheck{Disabled: true} }),
			assignment("c", func(a *warrenv1.Assignment) {
				a.Spec.Health = &warrenv1.HealthCheck{Interval: durationpb.New(time.Second), OnFailure: warrenv1.UnhealthyAction_UNHEALTHY_ACTION_WITHDRAW}
			}),
		)
		n.pass(4 * time.Second)
		n.kill()
		n.start()
		n.expectHealth("a", healthStarting)
		if status := n.expect("b", 1, running); status.GetHealth() != nil || !status.GetServing() {
			t.Errorf("%v", status)
		}
		n.expectHealth("c", healthUnhealthy)
	})
}

func TestACheckThatMakesNoSenseRejectsTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", func(a *warrenv1.Assignment) {
			a.Spec.Health = &warrenv1.HealthCheck{Probe: &warrenv1.HealthCheck_Http{Http: &warrenv1.HttpProbe{Port: 80, Body: "("}}}
		}))
		status := n.expect("a", 1, rejected)
		if !strings.HasPrefix(status.GetError(), "health.http.body: ") || !slices.Equal(kinds(status), []warrenv1.IncidentKind{rejectedKind}) {
			t.Errorf("%v", status)
		}
		n.expectContainers()
	})
}

func TestWhatBefellATaskIsKeptAndToldAgainByTheNextAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.output.kept["a"] = "line 1\nno database"
		n.assign(assignment("a"))
		for attempt := range uint32(12) {
			n.runtime.end(containerID("a", attempt+1), attempt, false)
			n.pass(time.Minute)
		}
		n.kill()
		n.start()
		incidents := n.expect("a", 13, running).GetIncidents()
		if len(incidents) != mostIncidents {
			t.Fatalf("%d incidents", len(incidents))
		}
		for i, incident := range incidents {
			want := fmt.Sprintf("exit code %d:\nline 1\nno database", i+2)
			if incident.GetKind() != exitKind || incident.GetAttempt() != uint32(i+3) || incident.GetMessage() != want || incident.GetAt() == nil {
				t.Errorf("incident %d is %v", i, incident)
			}
		}
	})
}

// The managers tell by it whether a program crashed soon, however long its image was pulled before.
func TestAnIncidentTellsWhenItsProgramHadBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.runtime.missing["img"] = Transient(errors.New("pull image img: connection refused"))
		n.assign(assignment("a"))
		n.pass(time.Minute)
		n.runtime.mu.Lock()
		delete(n.runtime.missing, "img")
		n.runtime.mu.Unlock()
		n.pass(time.Minute)
		began := n.expect("a", 1, running).GetStartedAt().AsTime()
		n.runtime.end("a-1", 1, false)
		n.pass(time.Minute)
		incidents := n.expect("a", 2, running).GetIncidents()
		if len(incidents) != 1 || !incidents[0].GetStartedAt().AsTime().Equal(began) || !incidents[0].GetAt().AsTime().After(began) {
			t.Errorf("it began at %v, and is told %v", began, incidents)
		}
	})
}

func TestAnAgentThatLeavesEndsProbesAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.assign(assignment("a", overlaid, probed()))
		n.stop()
		n.expectContainers("a-1")
		if !n.network.serves("a") {
			t.Error("it was withdrawn")
		}
		n.start()
		n.expectServing("a", true, "")
	})
}

func TestIncidentsAreShortAndTellTheLastOfTheOutput(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := &warrenv1.TaskStatus{Attempt: 1}
		for range rapid.IntRange(0, 30).Draw(r, "incidents") {
			output := rapid.StringN(0, 900, 3000).Draw(r, "output")
			befell(s, exitKind, time.Time{}, time.Now(), exited(Exit{Code: 1}, nil, output))
		}
		if len(s.GetIncidents()) > mostIncidents {
			r.Fatalf("%d incidents", len(s.GetIncidents()))
		}
		for _, i := range s.GetIncidents() {
			if text := i.GetMessage(); len(text) > incidentBytes || !utf8.ValidString(text) || !strings.HasPrefix(text, "exit code 1") {
				r.Fatalf("%q", text)
			}
		}
	})
	output := strings.Repeat("a line\n", 200) + "the last"
	got := exited(Exit{Code: 1}, nil, output)
	if len(got) > incidentBytes || !strings.HasPrefix(got, "exit code 1:\na line\n") || !strings.HasSuffix(got, "\nthe last") {
		t.Errorf("%q", got)
	}
	if got := exited(Exit{}, nil, ""); got != "exit code 0" {
		t.Errorf("%q", got)
	}
}
