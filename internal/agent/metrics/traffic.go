package metrics

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// traffic is what a network link has carried since it was made.
type traffic struct{ received, sent, receivedDropped, sentDropped uint64 }

func (t *traffic) add(more traffic) {
	t.received += more.received
	t.sent += more.sent
	t.receivedDropped += more.receivedDropped
	t.sentDropped += more.sentDropped
}

// here is the process file with the links of this process's own network namespace. Threads of the agent are in others
// for moments, on somebody's errand, so it is that of the thread that reads.
const here = "/proc/thread-self/net/dev"

// linksOf is the file with the links of a program's network namespace.
func linksOf(pid uint32) string { return "/proc/" + strconv.FormatUint(uint64(pid), 10) + "/net/dev" }

// readLinks reads the traffic of every link that a file as /proc/net/dev names.
func readLinks(path string) (map[string]traffic, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseLinks(string(text))
}

// parseLinks reads lines of NAME: and 16 numbers, of which the first eight are of what was received: bytes, packets, errors,
// dropped…
func parseLinks(text string) (map[string]traffic, error) {
	links := map[string]traffic{}
	for line := range strings.Lines(text) {
		name, rest, is := strings.Cut(line, ":")
		if !is {
			continue // one of the heads
		}
		fields := strings.Fields(rest)
		if len(fields) < 16 {
			return nil, fmt.Errorf("read the links' counters: %q has fewer than 16 numbers", line)
		}
		var t traffic
		for i, to := range map[int]*uint64{0: &t.received, 3: &t.receivedDropped, 8: &t.sent, 11: &t.sentDropped} {
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read the links' counters: %w", err)
			}
			*to = n
		}
		links[strings.TrimSpace(name)] = t
	}
	return links, nil
}

// outside is the traffic of all links but loopback.
func outside(links map[string]traffic) (sum traffic) {
	for name, t := range links {
		if name != "lo" {
			sum.add(t)
		}
	}
	return sum
}
