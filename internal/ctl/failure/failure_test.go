package failure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
)

func dial(network, addr string, cause error) error {
	var a net.Addr = &net.UnixAddr{Name: addr, Net: "unix"}
	if network == "tcp" {
		a = &net.TCPAddr{IP: net.ParseIP(addr), Port: 7400}
	}
	return connect.NewError(connect.CodeUnavailable, &net.OpError{Op: "dial", Net: network, Addr: a, Err: cause})
}

func noFlag(string) string { return "" }

func TestAManagerOutOfReachIsExplained(t *testing.T) {
	for _, c := range []struct {
		err  error
		want []string
	}{
		{dial("unix", "/run/m.sock", fs.ErrNotExist), []string{"cannot reach the manager at /run/m.sock: no such file", "systemctl start warren-manager", "--socket or --host"}},
		{dial("unix", "/run/m.sock", fs.ErrPermission), []string{"permission denied", "sudo warrenctl"}},
		{dial("unix", "/run/m.sock", syscall.ECONNREFUSED), []string{"nothing listens there any more", "systemctl start"}},
		{dial("tcp", "10.0.0.1", syscall.ECONNREFUSED), []string{"10.0.0.1:7400: connection refused", "check --host"}},
		{dial("tcp", "10.0.0.1", &net.DNSError{Name: "nowhere.example", IsNotFound: true}), []string{"no address is known for nowhere.example"}},
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
