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

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/client"
)

// The codes a warrenctl process ends with. Scripts depend on them.
const (
	// Done: what was asked for has been done.
	Done = 0
	// Failed: it has not, or not in time; standard error says why.
	Failed = 1
	// Usage: the command line or a value in it is wrong; nothing has been done.
	Usage = 2
	// Interrupted: the user ended it with Ctrl-C (128 and the signal's number, as shells count).
	// What had been ordered before goes on.
	Interrupted = 130
)

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// AsUsage marks err as a mistake in the command line.
func AsUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Usagef makes an error that is a mistake in the command line.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// ErrInterrupted ends a command that the user interrupted and that has said all there is to say.
var ErrInterrupted = errors.New("interrupted")

// ExitCode returns the code that a command which returned err ends with. Of several joined errors
// the gravest counts: a failure above a mistake, an interruption above both.
func ExitCode(err error) int {
	code := Done
	for _, e := range flatten(err) {
		switch one := exitCode(e); {
		case one == Interrupted, code == Interrupted:
			code = Interrupted
		case one == Failed, code == Failed:
			code = Failed
		default:
			code = one
		}
	}
	return code
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return Done
	case errors.Is(err, ErrInterrupted), errors.Is(err, context.Canceled), connect.CodeOf(err) == connect.CodeCanceled:
		return Interrupted
	case errors.As(err, &usage), isWire(err, connect.CodeInvalidArgument):
		return Usage
	default:
		return Failed
	}
}

// Describe returns what is to be said about err, one entry for each joined error; nothing for an
// interruption. flagOf names the flag that a field path of the API comes from, empty if none does.
func Describe(err error, flagOf func(path string) string) []string {
	var said []string
	for _, e := range flatten(err) {
		if exitCode(e) != Interrupted {
			said = append(said, describe(e, flagOf))
		}
	}
	return said
}

func describe(err error, flagOf func(string) string) string {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err.Error()
	}
	// What wraps the call's error stays as it is: it says which of several things failed.
	return strings.Replace(err.Error(), ce.Error(), explain(ce, flagOf), 1)
}

func explain(ce *connect.Error, flagOf func(string) string) string {
	if said := violations(ce, flagOf); said != "" {
		return said
	}
	if ce.Code() == connect.CodeUnimplemented {
		return "the manager does not know this call: it is older than this warrenctl; compare with `warrenctl version`"
	}
	if !connect.IsWireError(ce) {
		return unanswered(ce)
	}
	switch ce.Code() {
	case connect.CodeAborted:
		return ce.Message() + ": somebody else changes it at the same time; try again"
	default:
		if ce.Message() == "" {
			return ce.Code().String()
		}
		return ce.Message()
	}
}

// unanswered words an error of the way to the managers.
func unanswered(ce *connect.Error) string {
	if none := new(client.NoAnswerError); errors.As(ce, &none) {
		return noAnswer(none)
	}
	if lost := new(client.UncertainError); errors.As(ce, &lost) {
		return "the connection to the manager broke before it answered: what was asked may have been done or not: look before trying again: " + lost.Err.Error()
	}
	if op := new(net.OpError); errors.As(ce, &op) && op.Op == "dial" {
		return unreachable(ce, op)
	}
	if ce.Code() == connect.CodeDeadlineExceeded || errors.Is(ce, context.DeadlineExceeded) {
		return "the manager took the call but did not answer in time: is it overloaded or without a leader? try again"
	}
	return "the connection to the manager broke: " + ce.Message()
}

// noAnswer says what each manager answered, those together that answered the same.
func noAnswer(none *client.NoAnswerError) string {
	if len(none.Tries) == 1 {
		return sole(none.Tries[0])
	}
	var said []string
	at, reached := map[string][]string{}, false
	for _, t := range none.Tries {
		words := brief(t)
		if at[words] == nil {
			said = append(said, words)
		}
		at[words] = append(at[words], t.Addr)
		reached = reached || t.Reached
	}
	for i, words := range said {
		said[i] = strings.Join(at[words], " and ") + ": " + words
	}
	all := strings.Join(said, "; ")
	if !reached {
		return "cannot reach any manager: " + all + ": are they running, and does a firewall let the ports through? check --host or the context"
	}
	return "no manager could answer: " + all
}

// brief says why one of several managers did not answer.
func brief(t client.Try) string {
	if op := new(net.OpError); errors.As(t.Err, &op) && op.Op == "dial" {
		if call := new(os.SyscallError); errors.As(op.Err, &call) {
			return call.Err.Error()
		}
		return op.Err.Error()
	}
	return t.Err.Error()
}

// sole says why the only manager that was asked did not answer.
func sole(t client.Try) string {
	if op := new(net.OpError); errors.As(t.Err, &op) && op.Op == "dial" {
		return unreachable(t.Err, op)
	}
	switch {
	case t.Refused:
		return t.Err.Error()
	case t.Reached:
		return "the connection to the manager broke: " + t.Err.Error()
	}
	return "cannot reach the manager at " + t.Addr + ": " + t.Err.Error()
}

// unreachable words that no connection came about.
func unreachable(err error, op *net.OpError) string {
	at := "the address given"
	unix := op.Net == "unix"
	if op.Addr != nil {
		at = op.Addr.String()
	}
	const other = "or name another with --socket or --host"
	const start = "start it with `systemctl start warren-manager`, " + other
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("cannot reach the manager: no address is known for %s: check --host or the context", dns.Name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("cannot reach the manager at %s: permission denied: run warrenctl as root (`sudo warrenctl …`), join the group warren, %s", at, other)
	case unix && errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("cannot reach the manager at %s: no such file: is warren-manager running? %s", at, start)
	case unix && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("cannot reach the manager at %s: nothing listens there any more: did warren-manager end? %s", at, start)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("cannot reach the manager at %s: connection refused: is warren-manager running there, and on this port? check --host or the context", at)
	case op.Timeout():
		return fmt.Sprintf("cannot reach the manager at %s: no answer: is the machine up, and does a firewall let the port through? check --host or the context", at)
	default:
		return fmt.Sprintf("cannot reach the manager at %s: %v", at, op.Err)
	}
}

func isWire(err error, code connect.Code) bool {
	return connect.CodeOf(err) == code && connect.IsWireError(err)
}

// flatten returns the errors that were joined into err.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
