package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// load asks a server all the time, on several connections side by side, and tells what became of it.
//
// It speaks HTTP on connections of its own: net/http's client quietly asks again where a connection that
// is kept alive breaks, and a request that was lost would not be seen.
func load(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the URL"); err != nil {
		return err
	}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	length := flags.Duration("for", 10*time.Second, "how long to ask")
	side := flags.Int("connections", 8, "how many ask side by side")
	keep := flags.Bool("keepalive", true, "ask again on the same connection")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	request.Close = !*keep
	address := request.URL.Host
	if request.URL.Port() == "" {
		address = net.JoinHostPort(address, "80")
	}

	started := time.Now()
	asking, cancel := context.WithTimeout(ctx, *length)
	defer cancel()
	askers := make([]asker, *side)
	var group sync.WaitGroup
	for i := range askers {
		a := &askers[i]
		*a = asker{request: request, address: address, answers: tally{}, failures: tally{}}
		group.Go(func() { a.askUntil(asking) })
	}
	group.Wait()

	sum := asker{answers: tally{}, failures: tally{}}
	for _, a := range askers {
		sum.add(a)
	}
	requests, failed := sum.answers.total()+sum.failures.total(), sum.failures.total()
	fmt.Fprintf(w, "requests=%d failed=%d rate=%.0f/s connections=%d slowest=%dms tasks=%d\n", requests, failed,
		float64(requests)/time.Since(started).Seconds(), sum.dialled, sum.slowest.Milliseconds(), len(sum.answers))
	fmt.Fprintf(w, "the slowest was asked at %s\n", sum.slowestAsked.Format(clock))
	sum.answers.print(w)
	sum.failures.print(w)
	for _, f := range sum.first() {
		fmt.Fprintln(w, f)
	}
	switch {
	case failed > 0:
		first := sum.first()[0].ended
		return fmt.Errorf("%d of %d requests failed, the first after %dms, the last %dms later", failed, requests,
			first.Sub(started).Milliseconds(), sum.lastFailure.Sub(first).Milliseconds())
	case requests == 0:
		return errors.New("nothing was asked")
	}
	return nil
}

// asker asks one request after the other.
type asker struct {
	request *http.Request
	address string

	conn   net.Conn // nil between connections
	reader *bufio.Reader

	answers, failures tally // by who answered, by why
	dialled           int
	slowest           time.Duration
	slowestAsked      time.Time

	firstFailures []failure // at most tellAtMost, in order
	lastFailure   time.Time
}

// clock is how moments are told, to be held against what daemons say.
const clock = "15:04:05.000000"

// tellAtMost is how many failures are told one by one: what comes first says most of why.
const tellAtMost = 10

// failure is a request that failed.
type failure struct {
	asked, ended time.Time
	from         string // the local address, by which the kernel's tables know the connection; empty without one
	err          error
}

func (f failure) String() string {
	from := ""
	if f.from != "" {
		from = " from " + f.from
	}
	return fmt.Sprintf("failed at %s, asked at %s%s: %v%s", f.ended.Format(clock), f.asked.Format(clock), from, f.err, number(f.err))
}

// number is the kernel's for an error, if that is where it came from.
func number(err error) string {
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Sprintf(" (errno %d)", int(no))
	}
	return ""
}

// first are the first failures, in order of when they failed.
func (a *asker) first() []failure {
	slices.SortFunc(a.firstFailures, func(f, g failure) int { return f.ended.Compare(g.ended) })
	return a.firstFailures[:min(len(a.firstFailures), tellAtMost)]
}

func (a *asker) add(more asker) {
	a.answers.add(more.answers)
	a.failures.add(more.failures)
	a.dialled += more.dialled
	a.took(more.slowest, more.slowestAsked)
	a.firstFailures = append(a.firstFailures, more.firstFailures...)
	if more.lastFailure.After(a.lastFailure) {
		a.lastFailure = more.lastFailure
	}
}

// askUntil asks until ctx ends. What is asked then is still waited for.
func (a *asker) askUntil(ctx context.Context) {
	// So that a server that refuses everything is not asked a million times.
	const afterFailure = 10 * time.Millisecond
	lasting := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		started := time.Now()
		who, err := a.ask(lasting)
		a.took(time.Since(started), started)
		if err == nil {
			a.answers[who]++
			continue
		}
		a.failed(failure{asked: started, ended: time.Now(), from: a.from(), err: err})
		wait(ctx, afterFailure)
	}
	a.hangUp()
}

func (a *asker) took(how time.Duration, asked time.Time) {
	if how > a.slowest {
		a.slowest, a.slowestAsked = how, asked
	}
}

func (a *asker) failed(f failure) {
	a.hangUp()
	a.failures[why(f.err)]++
	if len(a.firstFailures) < tellAtMost {
		a.firstFailures = append(a.firstFailures, f)
	}
	a.lastFailure = f.ended
}

func (a *asker) from() string {
	if a.conn == nil {
		return ""
	}
	return a.conn.LocalAddr().String()
}

func (a *asker) ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerAtMost)
	defer cancel()
	if a.conn == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.address)
		if err != nil {
			return "", err
		}
		a.dialled++
		a.conn, a.reader = conn, bufio.NewReader(conn)
	}
	deadline, _ := ctx.Deadline()
	if err := a.conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if err := a.request.Write(a.conn); err != nil {
		return "", fmt.Errorf("send the request: %w", err)
	}
	response, err := http.ReadResponse(a.reader, a.request)
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if response.Close {
		a.hangUp()
	}
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	return whoAnswered(body)
}

func (a *asker) hangUp() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// why names the reason of a failure, without the ports that differ each time.
func why(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
