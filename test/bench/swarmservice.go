package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netns"
)

// swarmSpec is as much of a service's spec as is measured here; what is left out has Swarm's default.
type swarmSpec struct {
	Name         string
	TaskTemplate struct {
		ContainerSpec struct {
			Image       string
			Args        []string
			Healthcheck *swarmHealth `json:",omitempty"`
		}
		RestartPolicy *swarmRestart `json:",omitempty"`
		Placement     struct{ Constraints []string }
		Networks      []swarmTarget
		ForceUpdate   int
	}
	Mode         struct{ Replicated struct{ Replicas int } }
	UpdateConfig struct {
		Parallelism   int
		Order         string
		FailureAction string
		Monitor       time.Duration
	}
	EndpointSpec struct{ Mode string }
}

type (
	swarmTarget  struct{ Target string }
	swarmRestart struct {
		Condition string
		Delay     time.Duration
	}
	swarmHealth struct {
		Test     []string
		Interval time.Duration
		Retries  int
	}
)

// spec is a service of the benchmark's image whose tasks have an address on the overlay each, as Warren's is. Updates go as
// Warren's go by default: new tasks first, and back by themselves.
func (s *swarm) spec(name string, replicas int, args ...string) *swarmSpec {
	spec := &swarmSpec{Name: name}
	spec.TaskTemplate.ContainerSpec.Image, spec.TaskTemplate.ContainerSpec.Args = s.image, args
	spec.TaskTemplate.Networks = []swarmTarget{{s.network}}
	spec.Mode.Replicated.Replicas = replicas
	spec.EndpointSpec.Mode = "dnsrr"
	spec.UpdateConfig.Parallelism, spec.UpdateConfig.Order, spec.UpdateConfig.FailureAction = 1, "start-first", "rollback"
	spec.UpdateConfig.Monitor = 1 // none: 0 would be the default
	return spec
}

// on has a service's tasks on the machine of that number, counted from 1, as Warren's are on the only node of a cluster.
func (spec *swarmSpec) on(number int) *swarmSpec {
	spec.TaskTemplate.Placement.Constraints = []string{"node.hostname==swarm" + strconv.Itoa(number)}
	return spec
}

func (s *swarm) create(ctx context.Context, spec *swarmSpec) error {
	return s.call(ctx, 0, http.MethodPost, "/services/create", spec, nil)
}

type swarmService struct {
	Version      struct{ Index int }
	UpdateStatus struct{ State string }
}

// update changes a service.
func (s *swarm) update(ctx context.Context, spec *swarmSpec) error {
	var now swarmService
	if err := s.ask(ctx, "/services/"+spec.Name, &now); err != nil {
		return err
	}
	return s.call(ctx, 0, http.MethodPost, fmt.Sprintf("/services/%s/update?version=%d", spec.Name, now.Version.Index), spec, nil)
}

// updated waits until a service's update has come to the state that is wanted.
func (s *swarm) updated(ctx context.Context, name, state string) error {
	return s.until(ctx, "the update of "+name+" is "+state, func() (bool, error) {
		var now swarmService
		err := s.ask(ctx, "/services/"+name, &now)
		if err == nil && now.UpdateStatus.State == "paused" {
			err = fmt.Errorf("the update of %s has paused", name)
		}
		return now.UpdateStatus.State == state, err
	})
}

type swarmTask struct {
	ID           string
	NodeID       string
	Slot         int
	DesiredState string
	Status       struct {
		State           string
		ContainerStatus struct{ PID int }
	}
}

// tasks returns those tasks of a service that run, whether they are to or not.
func (s *swarm) tasks(ctx context.Context, service string) ([]swarmTask, error) {
	var all []swarmTask
	if err := s.ask(ctx, filtered("/tasks", "service", service), &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(t swarmTask) bool { return t.Status.State != "running" }), nil
}

// runs waits until n tasks run that are to, all of which pass, and returns them.
func (s *swarm) runs(ctx context.Context, service string, n int, pass func(swarmTask) bool) (running []swarmTask, err error) {
	err = s.until(ctx, fmt.Sprintf("%d tasks of %s run", n, service), func() (bool, error) {
		tasks, err := s.tasks(ctx, service)
		running = slices.DeleteFunc(tasks, func(t swarmTask) bool { return t.DesiredState != "running" })
		return len(running) == n && !slices.ContainsFunc(running, func(t swarmTask) bool { return !pass(t) }), err
	})
	return running, err
}

func anyTask(swarmTask) bool { return true }

// begin creates a service and waits until all of it runs.
func (s *swarm) begin(ctx context.Context, spec *swarmSpec) ([]swarmTask, error) {
	if err := s.create(ctx, spec); err != nil {
		return nil, err
	}
	return s.runs(ctx, spec.Name, spec.Mode.Replicated.Replicas, anyTask)
}

// remove removes a service and waits until its containers are gone.
func (s *swarm) remove(ctx context.Context, name string) error {
	if err := s.call(ctx, 0, http.MethodDelete, "/services/"+name, nil, nil); err != nil {
		return err
	}
	return s.until(ctx, "all containers of "+name+" are gone", func() (bool, error) {
		for i := range s.machines {
			left, err := s.containers(ctx, i, name)
			if err != nil || left > 0 {
				return false, err
			}
		}
		return true, nil
	})
}

// containers counts the containers of a service on a machine.
func (s *swarm) containers(ctx context.Context, engine int, service string) (int, error) {
	var all []struct{ ID string }
	err := s.call(ctx, engine, http.MethodGet, filtered("/containers/json", "label", "com.docker.swarm.service.name="+service)+"&all=1", nil, &all)
	return len(all), err
}

// namespace opens the network namespace of a process of a machine.
func (s *swarm) namespace(engine, pid int) (netns.NsHandle, error) {
	return netns.GetFromPath(fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", s.machines[engine].Leader(), pid))
}
