package traffic

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Traffic is what a network link has carried since it was made.
type Traffic struct{ Received, Sent, ReceivedDropped, SentDropped uint64 }

func (t *Traffic) add(more Traffic) {
	t.Received += more.Received
	t.Sent += more.Sent
	t.ReceivedDropped += more.ReceivedDropped
	t.SentDropped += more.SentDropped
}

// Here reads the traffic of every link of this machine, by name.
func Here() (map[string]Traffic, error) { return readLinks(here) }

// OfProgram returns what a program's network namespace has sent and received, loopback left out.
func OfProgram(pid uint32) (Traffic, error) {
	links, err := readLinks(linksOf(pid))
	if err != nil {
		return Traffic{}, err
	}
	return outside(links), nil
}

// here is the process file with the links of this process's own network namespace. Threads of the agent are in others
// for moments, on somebody's errand, so it is that of the thread that reads.
const here = "/proc/thread-self/net/dev"

// linksOf is the file with the links of a program's network namespace.
func linksOf(pid uint32) string { return "/proc/" + strconv.FormatUint(uint64(pid), 10) + "/net/dev" }

// readLinks reads the traffic of every link that a file as /proc/net/dev names.
func readLinks(path string) (map[string]Traffic, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseLinks(string(text))
}

// parseLinks reads lines of NAME: and 16 numbers, of which the first eight are of what was received: bytes, packets, errors,
// dropped…
func parseLinks(text string) (map[string]Traffic, error) {
	links := map[string]Traffic{}
	for line := range strings.Lines(text) {
		name, rest, is := strings.Cut(line, ":")
		if !is {
			continue // one of the heads
		}
		fields := strings.Fields(rest)
		if len(fields) < 16 {
			return nil, fmt.Errorf("read the links' counters: %q has fewer than 16 numbers", line)
		}
		var t Traffic
		for i, to := range map[int]*uint64{0: &t.Received, 3: &t.ReceivedDropped, 8: &t.Sent, 11: &t.SentDropped} {
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
func outside(links map[string]Traffic) (sum Traffic) {
	for name, t := range links {
		if name != "lo" {
			sum.add(t)
		}
	}
	return sum
}
