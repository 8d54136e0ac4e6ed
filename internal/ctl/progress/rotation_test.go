package progress

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// trustOf is how the CAs stand while new replaces old and those members are pending.
func trustOf(renewed uint32, pending ...*warrenv1.PendingMember) *warrenv1.Trust {
	return &warrenv1.Trust{
		Authorities: []*warrenv1.CertificateAuthority{{Digest: "new"}, {Digest: "old"}}, Renewed: renewed, Pending: pending,
	}
}

func ended() *warrenv1.Trust {
	return &warrenv1.Trust{Authorities: []*warrenv1.CertificateAuthority{{Digest: "new"}}}
}

func pendingAgent(name string) *warrenv1.PendingMember {
	return &warrenv1.PendingMember{Role: warrenv1.Role_ROLE_AGENT, Id: "id-" + name, Hostname: name}
}

func isDown(p *warrenv1.PendingMember) *warrenv1.PendingMember {
	p.Down = true
	return p
}

func TestAReplacementHasEndedWhenTheOldCAIsForgotten(t *testing.T) {
	r := newRotation(trustOf(0, pendingAgent("a")), Limits{}, epoch)
	r.observe(trustOf(1), epoch)
	if r.ended() {
		t.Error("it has ended before the old CA is forgotten")
	}
	r.observe(nil, epoch)
	if r.ended() || r.waiting()[0] != "the connection to the manager broke; trying again" {
		t.Errorf("out of reach it says %q", r.waiting())
	}
	r.observe(ended(), epoch)
	if !r.ended() {
		t.Error("it has not ended")
	}
	// The next one began while the manager was out of reach.
	r.observe(&warrenv1.Trust{Authorities: []*warrenv1.CertificateAuthority{{Digest: "newer"}, {Digest: "new"}}}, epoch)
	if !r.ended() {
		t.Error("it has not ended although another one has begun")
	}
}

func TestALimitEndsLookingAtAReplacement(t *testing.T) {
	r := newRotation(trustOf(0, pendingAgent("a"), pendingAgent("b")), Limits{Timeout: time.Hour, Stall: 10 * time.Minute}, epoch)
	at := func(d time.Duration) string { return r.stuck(epoch.Add(d)) }
	if at(9*time.Minute) != "" || at(10*time.Minute) != "and no nearer for 10m0s" || !r.next().Equal(epoch.Add(10*time.Minute)) {
		t.Errorf("stuck %q, next at %v", at(10*time.Minute), r.next())
	}
	r.observe(trustOf(1, pendingAgent("b")), epoch.Add(9*time.Minute))
	if at(18*time.Minute) != "" || at(19*time.Minute) == "" || at(time.Hour) != "within 1h0m0s" {
		t.Errorf("stuck %q", at(18*time.Minute))
	}
}

func TestWhoIsDownIsNamedWithWhatToDo(t *testing.T) {
	m := &warrenv1.PendingMember{Role: warrenv1.Role_ROLE_MANAGER, Id: "abcdefghijklmnop", Down: true}
	got := WaitingFor(trustOf(0, m, isDown(pendingAgent("x\x1b[2J")), pendingAgent("a"), pendingAgent("b"), pendingAgent("c"), pendingAgent("d"), pendingAgent("e"), pendingAgent("f"), pendingAgent("g")))
	want := []string{
		"waiting for agent a, agent b, agent c, agent d, agent e, and 2 more",
		"manager abcdefghijkl is down: bring it back, or remove it with `warrenctl manager rm abcdefghijkl`",
		"agent x [2J is down: bring it back, or remove it with `warrenctl node rm x [2J`",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it says\n%s", strings.Join(got, "\n"))
	}
}

func TestAReplacementIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	steps := []struct {
		after time.Duration
		trust *warrenv1.Trust
	}{
		{0, trustOf(0, pendingAgent("a"), pendingAgent("b"), pendingAgent("c"))},
		{100 * time.Millisecond, trustOf(1, pendingAgent("b"), pendingAgent("c"))},
		{200 * time.Millisecond, trustOf(1, isDown(pendingAgent("b")), pendingAgent("c"))},
		{2 * time.Second, trustOf(2, isDown(pendingAgent("b")))},
		{time.Minute, ended()},
	}
	var terminal, pipe bytes.Buffer
	bar := &rotationBar{screen{stream: output.Stream{Writer: &terminal, Terminal: true}}}
	journal := &rotationJournal{stream: output.Stream{Writer: &pipe}}
	r := newRotation(steps[0].trust, Limits{}, epoch)
	for _, s := range steps {
		r.observe(s.trust, epoch.Add(s.after))
		bar.draw(r, epoch.Add(s.after))
		journal.draw(r, epoch.Add(s.after))
	}
	if got, want := pipe.String(), `CA: 0/3 renewed; waiting for agent a, agent b, agent c
CA: 1/3 renewed; waiting for agent c; agent b is down: bring it back, or remove it with `+"`warrenctl node rm b`"+`
CA: 2/3 renewed; agent b is down: bring it back, or remove it with `+"`warrenctl node rm b`"+`
CA: replaced, done
`; got != want {
		t.Errorf("elsewhere it shows\n%s", got)
	}
	frames := strings.Split(terminal.String(), "\x1b[J")
	if got, want := frames[1], "\x1b[2ACA  ━━━━━━──────────────  1/3 renewed\x1b[K\n    waiting for agent b, agent c\x1b[K\n"; got != want {
		t.Errorf("the second frame is %q", got)
	}
	if got, want := frames[4], "\x1b[2ACA  ━━━━━━━━━━━━━━━━━━━━  done\x1b[K\n"; got != want {
		t.Errorf("the last frame is %q", got)
	}
}

func TestAManagerThatRefusesTheWatchEndsLooking(t *testing.T) {
	inbox := make(chan trustNews, 1)
	inbox <- trustNews{err: errors.New("refused")}
	var out bytes.Buffer
	s := &output.Streams{Err: output.Stream{Writer: &out}, Now: func() time.Time { return epoch }}
	if err := lookAtRotation(t.Context(), s, newRotation(trustOf(0, pendingAgent("a")), Limits{}, epoch), inbox); err == nil || err.Error() != "refused" {
		t.Errorf("it ends with %v", err)
	}
}
