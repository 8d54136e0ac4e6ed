package rules

import (
	"context"
	"os/exec"
	"testing"
)

func commandContext(ctx context.Context, command ...string) *exec.Cmd {
	return exec.CommandContext(ctx, command[0], command[1:]...)
}

func TestAVIPLeadsToTheEndpointsFromEverywhere(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1, bAddr), service("far", vip2, dAddr))
		for _, network := range []string{"tcp4", "udp4"} {
			w.a.reaches(network, vip1+":80", aAddr, "b")
			w.a.reaches(network, vip2+":80", aAddr, "d") // remote, and the client's address is kept
			w.node.reaches(network, vip1+":80", "10.208.3.1", "b")
			w.node.reaches(network, vip2+":80", "10.208.3.1", "d")
			w.b.reaches(network, vip1+":80", "10.208.3.1", "b") // hairpin: masqueraded
			w.d.reaches(network, vip1+":80", dAddr, "b")
			w.a.reaches(network, bAddr+":80", aAddr, "b") // without a VIP
			w.a.reaches(network, dAddr+":80", aAddr, "d")
		}
	})
}

func TestAVIPWithoutAnEndpointIsRefusedAtOnce(t *testing.T) {
	everywhere(t, func(_ *testing.T, w *world) {
		w.replace(service("one", vip1))
		for _, network := range []string{"tcp4", "udp4"} {
			w.a.refused(network, vip1+":80")
			w.node.refused(network, vip1+":80")
			w.a.refused(network, vip2+":80") // nobody's
		}
		w.apply(service("one", vip1, bAddr))
		w.a.reaches("tcp4", vip1+":80", aAddr, "b")
		w.apply(service("one", vip1))
		w.a.refused("tcp4", vip1+":80")
	})
}
