package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// lookUp prints what a name stands for, one thing a line, in order.
func lookUp(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the name"); err != nil {
		return err
	}
	kind, err := optional(args, 1, "A", func(arg string) (string, error) { return strings.ToUpper(arg), nil })
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerAtMost)
	defer cancel()
	found, err := lookUpKind(ctx, args[0], kind)
	if err != nil {
		return err
	}
	slices.Sort(found)
	for _, line := range found {
		fmt.Fprintln(w, line)
	}
	return nil
}

func lookUpKind(ctx context.Context, name, kind string) ([]string, error) {
	var found []string
	switch kind {
	case "A":
		addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		for _, address := range addresses {
			found = append(found, address.Unmap().String())
		}
		return found, err
	case "SRV":
		_, services, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
		for _, s := range services {
			found = append(found, fmt.Sprintf("%s:%d priority %d weight %d", s.Target, s.Port, s.Priority, s.Weight))
		}
		return found, err
	case "PTR":
		return net.DefaultResolver.LookupAddr(ctx, name)
	}
	return nil, fmt.Errorf("a name has no %s here: A, SRV or PTR", kind)
}
