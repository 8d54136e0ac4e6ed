package specflags

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// publication is a port to publish.
type publication struct {
	*warrenv1.PortSpec
	host bool // on the task's own node alone
}

var protocols = map[string]warrenv1.Protocol{
	"tcp": warrenv1.Protocol_PROTOCOL_TCP,
	"udp": warrenv1.Protocol_PROTOCOL_UDP,
}

// hostMode begins a short value that means the task's own node alone, as `service ls` shows it.
const hostMode = "host:"

// publish reads the value of --publish: [host:][PUBLISHED:]TARGET[/PROTOCOL] with ranges, or comma-separated
// KEY=VALUE, as Docker has them but for host.
func publish(flag, value string) ([]publication, error) {
	if strings.Contains(value, "=") {
		p, err := longPublication(value)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, value, err)
		}
		return []publication{p}, nil
	}
	short, host := strings.CutPrefix(value, hostMode)
	published, target, protocol, err := shortPublication(short)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, value, err)
	}
	var all []publication
	for i := range target.count() {
		p := &warrenv1.PortSpec{Protocol: protocol, Target: target.from + i}
		if published.from > 0 {
			p.Published = published.from + i
		}
		all = append(all, publication{PortSpec: p, host: host})
	}
	return all, nil
}

func publications(flag string, values []string) ([]publication, error) {
	all, err := each(values, func(v string) ([]publication, error) { return publish(flag, v) })
	return slices.Concat(all...), err
}

// span is a range of ports.
type span struct{ from, to uint32 }

func (s span) count() uint32 { return s.to - s.from + 1 }

// mostPorts is how many ports one value may name.
const mostPorts = 256

func parseSpan(text string) (span, error) {
	from, to, ranged := strings.Cut(text, "-")
	s := span{}
	var err error
	if s.from, err = parsePort(from); err != nil {
		return s, err
	}
	if s.to = s.from; ranged {
		if s.to, err = parsePort(to); err != nil {
			return s, err
		}
	}
	switch {
	case s.to < s.from:
		return s, fmt.Errorf("the range %s goes backwards", text)
	case s.count() > mostPorts:
		return s, fmt.Errorf("the range %s has %d ports; a service can have %d", text, s.count(), mostPorts)
	}
	return s, nil
}

func parsePort(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", text)
	}
	return uint32(n), nil
}

// shortPublication reads [PUBLISHED:]TARGET[/PROTOCOL]; what is not published by a number begins at 0.
func shortPublication(value string) (published, target span, protocol warrenv1.Protocol, err error) {
	ports, name, _ := strings.Cut(value, "/")
	if protocol, err = parseProtocol(name); err != nil {
		return published, target, protocol, err
	}
	left, right, both := cutLast(ports)
	if !both {
		target, err = parseSpan(ports)
		return published, target, protocol, err
	}
	if target, err = parseSpan(right); err != nil {
		return published, target, protocol, err
	}
	if at, _, addressed := cutLast(left); addressed || isAddress(left) {
		return published, target, protocol, fmt.Errorf("an address, here %s, cannot be chosen: a published port is open on every address of every node; leave it out, and narrow who may come in with rules of your own in the chain WARREN-USER",
			strings.Trim(cmp.Or(at, left), "[]"))
	}
	if left == "" || left == "0" {
		return published, target, protocol, nil
	}
	if published, err = parseSpan(left); err == nil && published.count() != target.count() {
		err = fmt.Errorf("%s and %s are not equally many ports", left, right)
	}
	return published, target, protocol, err
}

// cutLast cuts a text at its last colon.
func cutLast(text string) (before, after string, found bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return err == nil
}

// parseProtocol reads a protocol; of none TCP is meant, and nothing is written down.
func parseProtocol(name string) (warrenv1.Protocol, error) {
	p, known := protocols[strings.ToLower(name)]
	if !known && name != "" {
		return p, fmt.Errorf("the protocol is %q, but can be tcp or udp", name)
	}
	return p, nil
}

func longPublication(value string) (publication, error) {
	p := publication{PortSpec: &warrenv1.PortSpec{}}
	given := map[string]bool{}
	for part := range strings.SplitSeq(value, ",") {
		key, v, ok := strings.Cut(part, "=")
		if !ok {
			return p, fmt.Errorf("%q is not KEY=VALUE, such as published=8080,target=80", part)
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if given[key] {
			return p, fmt.Errorf("%s is given twice: publish one port with each flag", key)
		}
		given[key] = true
		var err error
		switch key {
		case "published":
			if v != "0" {
				p.Published, err = parsePort(v)
			}
		case "target":
			p.Target, err = parsePort(v)
		case "protocol":
			p.Protocol, err = parseProtocol(v)
		case "mode":
			if p.host = v == "host"; !p.host && v != "ingress" {
				err = fmt.Errorf("the mode is %q, but can be ingress (open on every node) or host (on the task's own)", v)
			}
		case "name":
			p.Name = v
		default:
			err = fmt.Errorf("%s is not known: published, target, protocol, mode and name are", key)
		}
		if err != nil {
			return p, err
		}
	}
	if p.Target == 0 {
		return p, fmt.Errorf("target is missing: the port that the program listens on")
	}
	return p, nil
}

func definite(p warrenv1.Protocol) warrenv1.Protocol {
	return cmp.Or(p, warrenv1.Protocol_PROTOCOL_TCP)
}

// addPorts publishes ports, each in the place of one of its mode that has its published port, or, where none is
// named, of one that leads to its target.
func addPorts(spec *warrenv1.ServiceSpec, ports []publication) {
	for _, p := range ports {
		list := &spec.Task.HostPorts
		if !p.host {
			list = &made(&spec.Endpoint).Ports
		}
		at := slices.IndexFunc(*list, func(is *warrenv1.PortSpec) bool {
			if definite(is.GetProtocol()) != definite(p.GetProtocol()) {
				return false
			}
			if p.GetPublished() == 0 {
				return is.GetTarget() == p.GetTarget()
			}
			return is.GetPublished() == p.GetPublished()
		})
		switch {
		case at < 0:
			*list = append(*list, p.PortSpec)
		case p.GetPublished() != 0:
			(*list)[at] = p.PortSpec
		case p.GetName() != "": // which port it is stays
			(*list)[at].Name = p.GetName()
		}
	}
}

// removePorts ceases to publish what --publish-rm names: TARGET[/PROTOCOL], or one of several that lead there
// as PUBLISHED:TARGET; with host: before it only of those on the tasks' own nodes.
func removePorts(spec *warrenv1.ServiceSpec, values []string) error {
	for _, value := range values {
		short, hostOnly := strings.CutPrefix(value, hostMode)
		published, target, protocol, err := shortPublication(short)
		if err != nil {
			return fmt.Errorf("--publish-rm %s: %w", value, err)
		}
		found, hint := false, ""
		gone := func(p *warrenv1.PortSpec) bool {
			if definite(p.GetProtocol()) != definite(protocol) {
				return false
			}
			if within := p.GetTarget() >= target.from && p.GetTarget() <= target.to; !within {
				if p.GetPublished() == target.from && target.from == target.to {
					hint = fmt.Sprintf("; to end publishing %d write %d, where it leads", p.GetPublished(), p.GetTarget())
				}
				return false
			}
			if published.from > 0 && p.GetPublished() != published.from+p.GetTarget()-target.from {
				if p.GetPublished() == 0 {
					hint = fmt.Sprintf("; the one that leads to %d was left to Warren to choose: write %d alone", p.GetTarget(), p.GetTarget())
				}
				return false
			}
			found = true
			return true
		}
		spec.Task.HostPorts = slices.DeleteFunc(spec.GetTask().GetHostPorts(), gone)
		if spec.GetEndpoint() != nil && !hostOnly {
			spec.Endpoint.Ports = slices.DeleteFunc(spec.GetEndpoint().GetPorts(), gone)
		}
		if !found {
			return fmt.Errorf("--publish-rm %s: no such port is published%s", value, hint)
		}
	}
	return nil
}
