package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const deaths = 10

// measureEndpointRemoved kills tasks of a service, one after the other, and times from the signal until the rules of
// each of three nodes lead to it no more. What is timed is the kernel's own word: "nft monitor" in the network
// namespace of each node tells of every element that is deleted from a map.
func measureEndpointRemoved(ctx context.Context, b *bench) (err error) {
	c, err := b.startCluster(ctx, maxNodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	monitors := map[string]*monitor{}
	for _, a := range c.agents {
		m, err := startMonitor(ctx, a.machine)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close()) }()
		monitors[a.name] = m
	}
	s := spec("mortal", b.machine.image, deaths+2)
	s.Task.Restart = &warrenv1.RestartPolicy{Condition: warrenv1.RestartCondition_RESTART_CONDITION_NONE}
	if err := c.create(ctx, s); err != nil {
		return err
	}
	if err := c.converged(ctx, "mortal"); err != nil {
		return err
	}
	tasks, err := c.placed(ctx, "mortal")
	if err != nil {
		return err
	}
	var victims []victim
	for node, all := range tasks {
		for _, task := range all {
			victims = append(victims, victim{placed: task, node: node})
			for name, m := range monitors {
				err := until(ctx, name+" balances to "+task.address, func() (bool, error) { is, _ := m.rotates(task.address); return is, nil })
				if err != nil {
					return err
				}
			}
		}
	}
	var own, last []time.Duration
	for _, v := range victims[:deaths] {
		first, worst, err := v.kill(ctx, monitors)
		if err != nil {
			return err
		}
		own, last = append(own, first), append(last, worst)
	}
	if err := c.clean(ctx, "mortal"); err != nil {
		return err
	}
	b.row("endpoint_removed_ms", milliseconds(median(last)), "ms", fmt.Sprintf("from a task's kill -9 to the last of %d nodes' rule, median of %d", maxNodes, deaths))
	b.row("endpoint_removed_worst_ms", milliseconds(slices.Max(last)), "ms", "the worst of them")
	b.row("endpoint_removed_own_ms", milliseconds(median(own)), "ms", "to the rule of the task's own node")
	return nil
}

// victim is a task that is to die.
type victim struct {
	placed
	node string
}

// kill kills the task and returns how long it took until its own node and until the last had it out of rotation.
func (v victim) kill(ctx context.Context, monitors map[string]*monitor) (own, last time.Duration, err error) {
	begin := time.Now()
	if err := syscall.Kill(int(v.GetStatus().GetPid()), syscall.SIGKILL); err != nil {
		return 0, 0, err
	}
	for name, m := range monitors {
		var at time.Time
		err := until(ctx, name+" has ceased to balance to "+v.address, func() (bool, error) {
			var still bool
			still, at = m.rotates(v.address)
			return !still, nil
		})
		if err != nil {
			return 0, 0, err
		}
		took := at.Sub(begin)
		if took < 0 {
			return 0, 0, fmt.Errorf("%s had ceased to balance to %s before it died", name, v.address)
		}
		if last = max(last, took); name == v.node {
			own = took
		}
	}
	return own, last, nil
}

// monitor hears of every change to a node's rules.
type monitor struct {
	command *exec.Cmd
	read    sync.WaitGroup
	failed  error // of reading; after read

	mu    sync.Mutex
	slots map[string]string // a slot of a virtual address, with its table → its endpoint
	since map[string]time.Time
	ready bool
}

// readyTable is a table that is made for the monitor to tell of.
const readyTable = "bench-monitor"

// startMonitor returns when the monitor hears what happens.
func startMonitor(ctx context.Context, machine *namespace) (*monitor, error) {
	m := &monitor{command: exec.CommandContext(ctx, "nft", "monitor"), slots: map[string]string{}, since: map[string]time.Time{}}
	m.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	lines, err := m.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := machine.do(m.command.Start); err != nil {
		return nil, fmt.Errorf("start nft monitor: %w: run \"make setup\", which installs it", err)
	}
	m.read.Go(func() { m.failed = m.follow(lines) })
	err = until(ctx, "nft monitor hears", func() (bool, error) {
		table := exec.CommandContext(ctx, "nft", "add table ip "+readyTable+"; delete table ip "+readyTable)
		if err := machine.do(table.Run); err != nil {
			return false, fmt.Errorf("nft: %w", err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.ready, nil
	})
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// follow notes what happens to the map in which virtual addresses' endpoints stand. Lines of it are such as
//
//	add element ip warren-a endpoints { 10.224.0.1 . 0x00000002 : 10.208.1.4 }
//	delete element ip warren-a endpoints { 10.224.0.1 . 0x00000002 : 10.208.1.4 }
//	delete table ip warren-a
//	# new generation 12 by process 345 (warren-agent)
//
// The last of these ends a transaction, in which an endpoint may have gone from one slot to another.
func (m *monitor) follow(output io.Reader) error {
	var staged [][]string
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		now, fields := time.Now(), strings.Fields(lines.Text())
		if strings.HasPrefix(lines.Text(), "# new generation") {
			m.commit(now, staged)
			staged = nil
			continue
		}
		staged = append(staged, fields)
	}
	return lines.Err()
}

// commit notes a transaction, line by line.
func (m *monitor) commit(now time.Time, transaction [][]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, fields := range transaction {
		switch {
		case slices.Contains(fields, readyTable):
			m.ready = true
		case len(fields) == 4 && fields[0] == "delete" && fields[1] == "table":
			for slot, endpoint := range m.slots {
				if strings.HasPrefix(slot, fields[3]+" ") {
					delete(m.slots, slot)
					m.since[endpoint] = now
				}
			}
		case len(fields) == 12 && fields[1] == "element" && fields[4] == "endpoints":
			slot, endpoint := strings.Join([]string{fields[3], fields[6], fields[8]}, " "), fields[10]
			m.since[endpoint] = now
			if fields[0] == "add" {
				m.slots[slot] = endpoint
			} else if m.slots[slot] == endpoint {
				delete(m.slots, slot)
			}
		}
	}
}

// rotates tells whether an endpoint is in rotation, and since when that is so; the zero time: nothing was heard of it.
func (m *monitor) rotates(endpoint string) (bool, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.slots {
		if e == endpoint {
			return true, m.since[endpoint]
		}
	}
	return false, m.since[endpoint]
}

func (m *monitor) close() error {
	_ = m.command.Process.Kill()
	m.read.Wait()
	_ = m.command.Wait() // it was killed
	return m.failed
}
