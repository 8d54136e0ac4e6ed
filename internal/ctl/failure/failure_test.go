package failure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
)

func dial(network, addr string, cause error) error {
	return connect.NewError(connect.CodeUnavailable, dialError(network, addr, cause))
}

func dialError(network, addr string, cause error) error {
	var a net.Addr = &net.UnixAddr{Name: addr, Net: "unix"}
	if network == "tcp" {
		a = &net.TCPAddr{IP: net.ParseIP(addr), Port: 7400}
	}
	return &net.OpError{Op: "dial", Net: network, Addr: a, Err: cause}
}

func noFlag(string) string { return "" }

func TestAManagerOutOfReachIsExplained(t *testing.T) {
	for _, c := range []struct {
		err  error
		want []string
	}{
		{dial("unix", "/run/m.sock", fs.ErrNotExist), []string{"cannot reach the manager at /run/m.sock: no such file", "systemctl start warren-manager", "--socket or --host"}},
		{dial("unix", "/run/m.sock", fs.ErrPermission), []string{"permission denied", "sudo warrenctl", "group warren"}},
		{dial("unix", "/run/m.sock", syscall.ECONNREFUSED), []string{"nothing listens there any more", "systemctl start"}},
		{dial("tcp", "10.0.0.1", syscall.ECONNREFUSED), []string{"10.0.0.1:7400: connection refused", "check --host"}},
		{dial("tcp", "10.0.0.1", &net.DNSError{Name: "nowhere.example", IsNotFound: true}), []string{"no address is known for nowhere.example"}},
		{connect.NewError(connect.CodeUnavailable, &client.NoAnswerError{Tries: []client.Try{{Addr: "manager", Err: dialError("unix", "/run/m.sock", fs.ErrNotExist)}}}), []string{"cannot reach the manager at /run/m.sock: no such file", "systemctl start"}},
		{connect.NewError(connect.CodeUnavailable, &client.NoAnswerError{Tries: []client.Try{{Addr: "manager", Reached: true, Refused: true, Err: errors.New("nobody leads")}}}), []string{"web: nobody leads"}},
		{connect.NewError(connect.CodeUnavailable, &client.NoAnswerError{Tries: []client.Try{{Addr: "manager", Reached: true, Err: errors.New("unexpected EOF")}}}), []string{"the connection to the manager broke: unexpected EOF"}},
		{connect.NewError(connect.CodeUnavailable, &client.NoAnswerError{Tries: []client.Try{
			{Addr: "a:1", Reached: true, Refused: true, Err: errors.New("nobody leads")},
			{Addr: "b:1", Err: dialError("tcp", "10.0.0.1", &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED})},
			{Addr: "c:1", Reached: true, Refused: true, Err: errors.New("nobody leads")},
		}}), []string{"no manager could answer: a:1 and c:1: nobody leads; b:1: connection refused"}},
		{connect.NewError(connect.CodeUnavailable, &client.NoAnswerError{Tries: []client.Try{
			{Addr: "a:1", Err: dialError("tcp", "10.0.0.1", os.ErrDeadlineExceeded)}, {Addr: "b:1", Err: errors.New("the certificate has expired")},
		}}), []string{"cannot reach any manager: a:1: i/o timeout; b:1: the certificate has expired: are they running", "check --host or the context"}},
		{connect.NewError(connect.CodeUnavailable, &client.UncertainError{Err: errors.New("unexpected EOF")}), []string{"may have been done or not: look before trying again: unexpected EOF"}},
		{connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded), []string{"did not answer in time"}},
		{connect.NewError(connect.CodeUnavailable, errors.New("unexpected EOF")), []string{"the connection to the manager broke: unexpected EOF"}},
	} {
		said := Describe(fmt.Errorf("web: %w", c.err), noFlag)
		if len(said) != 1 || !strings.HasPrefix(said[0], "web: ") {
			t.Fatalf("said %q", said)
		}
		for _, part := range c.want {
			if !strings.Contains(said[0], part) {
				t.Errorf("%q does not say %q", said[0], part)
			}
		}
		if code := ExitCode(c.err); code != Failed {
			t.Errorf("%v ends with %d", c.err, code)
		}
	}
}

func TestTheGravestOfSeveralErrorsGivesTheExitCode(t *testing.T) {
	failed, usage := errors.New("failed"), Usagef("usage")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, Done},
		{failed, Failed},
		{usage, Usage},
		{fmt.Errorf("web: %w", usage), Usage},
		{errors.Join(usage, failed), Failed},
		{errors.Join(failed, usage), Failed},
		{errors.Join(failed, errors.Join(ErrInterrupted, usage)), Interrupted},
		{context.Canceled, Interrupted},
		{connect.NewError(connect.CodeCanceled, context.Canceled), Interrupted},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("%v ends with %d, want %d", c.err, got, c.want)
		}
	}
}

func TestJoinedErrorsAreSaidOneByOneAndInterruptionsNotAtAll(t *testing.T) {
	said := Describe(errors.Join(errors.New("a"), ErrInterrupted, errors.Join(errors.New("b"), errors.New("c"))), noFlag)
	if strings.Join(said, ",") != "a,b,c" {
		t.Errorf("said %q", said)
	}
}
