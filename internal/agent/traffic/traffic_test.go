package traffic

import (
	"maps"
	"testing"
)

func TestLinksAreReadAsTheKernelWritesThem(t *testing.T) {
	t.Parallel()
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0:12345      20    0    3    0     0          0         0      678      15    0    4    0     0       0          0
`
	got, err := parseLinks(text)
	eth0 := Traffic{Received: 12345, Sent: 678, ReceivedDropped: 3, SentDropped: 4}
	want := map[string]Traffic{"lo": {Received: 1000, Sent: 1000}, "eth0": eth0}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if sum := outside(got); sum != eth0 {
		t.Errorf("without loopback: %+v", sum)
	}
	for _, wrong := range []string{"eth0: 1 2 3\n", "eth0: a 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"} {
		if _, err := parseLinks(wrong); err == nil {
			t.Errorf("%q is taken for links", wrong)
		}
	}
}

func TestThisMachinesLinksAreRead(t *testing.T) {
	t.Parallel()
	if links, err := readLinks(here); err != nil || len(links) == 0 {
		t.Errorf("got %v, %v", links, err)
	}
}
