package iptables

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// restore puts several chains in force as one, table by table, which go-iptables has no call for.
func (s *Shared) restore(ctx context.Context, input []byte) error {
	return s.in.Run(func() error {
		var stderr bytes.Buffer
		restore := exec.CommandContext(ctx, s.program+"-restore", "--noflush", "--wait", "10")
		restore.Stdin, restore.Stderr = bytes.NewReader(input), &stderr
		err := restore.Start()
		if err == nil {
			s.started(uint32(restore.Process.Pid))
			err = restore.Wait()
		}
		if err != nil {
			return fmt.Errorf("run %s: %w: %s", restore.Path, err, strings.TrimSpace(stderr.String()))
		}
		return nil
	})
}

// count counts the rules of each of our chains in a table.
func (s *Shared) count(ctx context.Context, table string) (map[string]int, error) {
	counts := map[string]int{}
	err := s.in.Run(func() error {
		if stands, err := s.stands(table); err != nil || !stands {
			return err
		}
		saved, err := exec.CommandContext(ctx, s.program+"-save", "-t", table).Output()
		if err != nil {
			return fmt.Errorf("run %s-save: %w", s.program, err)
		}
		for line := range strings.Lines(string(saved)) {
			fields := strings.Fields(line)
			switch {
			case len(fields) > 1 && strings.HasPrefix(fields[0], ":"+prefix):
				counts[fields[0][1:]] += 0
			case len(fields) > 1 && fields[0] == "-A" && strings.HasPrefix(fields[1], prefix):
				counts[fields[1]]++
			}
		}
		return nil
	})
	return counts, err
}

func (s *Shared) started(pid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.children = append(s.children, pid)
	if len(s.children) > 64 {
		s.children = slices.Clone(s.children[32:])
	}
}

// Ours tells whether the kernel's news from a socket, by its netlink port, are of a program we started: iptables-nft speaks to the
// kernel by a socket with its process's number.
func (s *Shared) Ours(socket uint32) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.children, socket)
}
