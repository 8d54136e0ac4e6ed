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
	"sync"
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
		*a = asker{request: request, address: address, started: started, answers: tally{}, failures: tally{}}
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
	sum.answers.print(w)
	sum.failures.print(w)
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d requests failed, the first after %dms, the last %dms later", failed, requests,
			sum.firstFailure.Milliseconds(), (sum.lastFailure - sum.firstFailure).Milliseconds())
	case requests == 0:
		return errors.New("nothing was asked")
	}
	return nil
}

// asker asks one request after the other.
type asker struct {
	request *http.Request
	address string
	started time.Time

	conn   net.Conn // nil between connections
	reader *bufio.Reader

	answers, failures tally // by who answered, by why
	dialled           int
	slowest           time.Duration

	firstFailure, lastFailure time.Duration // since the start
}

func (a *asker) add(more asker) {
	a.answers.add(more.answers)
	a.failures.add(more.failures)
	a.dialled += more.dialled
	a.slowest = max(a.slowest, more.slowest)
	if more.firstFailure > 0 && (a.firstFailure == 0 || more.firstFailure < a.firstFailure) {
		a.firstFailure = more.firstFailure
	}
	a.lastFailure = max(a.lastFailure, more.lastFailure)
}

// askUntil asks until ctx ends. What is asked then is still waited for.
func (a *asker) askUntil(ctx context.Context) {
	// So that a server that refuses everything is not asked a million times.
	const afterFailure = 10 * time.Millisecond
	lasting := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		started := time.Now()
		who, err := a.ask(lasting)
		a.slowest = max(a.slowest, time.Since(started))
		if err == nil {
			a.answers[who]++
			continue
		}
		a.hangUp()
		a.failures[why(err)]++
		if a.firstFailure == 0 {
			a.firstFailure = time.Since(a.started)
		}
		a.lastFailure = time.Since(a.started)
		wait(ctx, afterFailure)
	}
	a.hangUp()
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
		return "", err
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
