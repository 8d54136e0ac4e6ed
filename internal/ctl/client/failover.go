package client

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// The headers by which managers say how they have answered (internal/manager/forward).
const (
	unexecutedHeader = "Warren-Not-Executed"
	staleHeader      = "Warren-Stale"
	leaderlessHeader = "Warren-Leaderless-Since"
)

const (
	// patience is how long a call goes round the managers. An election takes about one second.
	patience = 10 * time.Second
	// streamPatience is the same for a stream, whose caller tries again anyway and says so.
	streamPatience = 4 * time.Second
	// The pause before managers are asked again that all were asked: the first, doubling up to the last.
	firstPause = 50 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// failover sends each call to the manager that answered last. Where it cannot be reached, or says that
// it has not carried the call out, the others are asked. A call that may have been carried out is made
// again only if it changes nothing.
type failover struct {
	scheme     string
	addrs      []string
	transport  http.RoundTripper
	dialer     *dialer
	procedures map[string]procedure
	onStale    func(since time.Time)
	stale      sync.Once

	mu    sync.Mutex
	last  int  // the manager that answered last
	alive bool // and still did at the last call
	ever  bool // any has answered
}

func newFailover(o Options) (*failover, error) {
	if err := check(o); err != nil {
		return nil, err
	}
	d := newDialer(o.Socket)
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: d.dial}
	f := &failover{transport: transport, dialer: d, addrs: o.Addrs, procedures: procedures(), onStale: o.OnStale}
	if len(o.Addrs) == 0 {
		f.scheme, f.addrs = "http", []string{"manager"} // whatever the name, the socket is dialled
		transport.Protocols.SetUnencryptedHTTP2(true)
		transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: keepAlive, PingTimeout: keepAlive}
		return f, nil
	}
	f.scheme = "https"
	transport.Protocols.SetHTTP2(true)
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	transport.TLSClientConfig, transport.TLSHandshakeTimeout = tlsConfig(o), dialTimeout
	return f, nil
}

// RoundTrip implements http.RoundTripper.
func (f *failover) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.GetBody == nil { // it comes bit by bit, and can be sent once
		to, _ := f.order()
		res, _, err := f.send(req, to[0], req.Body, nil)
		return res, err
	}
	body, err := take(req)
	if err != nil {
		return nil, err
	}
	p := f.procedures[req.URL.Path]
	wait := patience
	if p.stream {
		wait = streamPatience
	}
	var since time.Time // when there was no answer any more
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		res, tries, err := f.round(req, body, p)
		if tries == nil {
			return res, err
		}
		switch {
		case time.Since(began) > patience: // it was with a manager for long, and then lost
			since = time.Now()
		case since.IsZero():
			since = began
		}
		if hopeless(tries) || !anyReached(tries) && !f.reached() || time.Since(since)+pause > wait {
			return nil, &NoAnswerError{Tries: tries, Since: since}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-req.Context().Done():
			timer.Stop()
			return nil, req.Context().Err()
		}
	}
}

// round asks each manager once until one answers. Where none does it returns what came of each.
func (f *failover) round(req *http.Request, body []byte, p procedure) (answer *http.Response, tries []Try, err error) {
	left, alive := f.order()
	for len(left) > 0 {
		if !alive && len(f.addrs) > 1 {
			var failed []Try
			left, failed = f.dialer.race(req.Context(), left)
			tries = append(tries, failed...)
			if len(left) == 0 {
				break
			}
		}
		alive = false
		addr := left[0]
		left = left[1:]
		res, over, err := f.send(req, addr, reader(body), func() (io.ReadCloser, error) { return reader(body), nil })
		switch {
		case err == nil && res.Header.Get(unexecutedHeader) == "":
			f.answered(addr, res)
			return res, nil, nil
		case err == nil:
			tries = append(tries, Try{Addr: addr, Err: refusalOf(res), Reached: true, Refused: true, leaderless: res.Header.Get(leaderlessHeader) != ""})
			continue
		case req.Context().Err() != nil:
			return nil, nil, err
		case over.sent.Load() && !p.repeatable:
			f.lost(addr)
			return nil, nil, &UncertainError{err}
		}
		f.lost(addr)
		tries = append(tries, Try{Addr: addr, Err: err, Reached: over.connected.Load()})
	}
	if err := req.Context().Err(); err != nil {
		return nil, nil, err
	}
	return nil, tries, nil
}

// reach is how far a call has come.
type reach struct{ connected, sent atomic.Bool }

// send makes a call at one manager. A manager that was not sent all of a call has not carried it out. With
// again it may be sent again over another connection.
func (f *failover) send(req *http.Request, addr string, body io.ReadCloser, again func() (io.ReadCloser, error)) (res *http.Response, over *reach, err error) {
	over = &reach{}
	out := req.Clone(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { over.connected.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) { over.sent.Store(info.Err == nil) },
	}))
	out.URL.Host, out.Host, out.Body, out.GetBody = addr, "", body, again
	res, err = f.transport.RoundTrip(out)
	return res, over, err
}

// order returns the managers in the order in which they are to be asked, and whether the first is known
// to be there.
func (f *failover) order() (addrs []string, alive bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(append(addrs, f.addrs[f.last:]...), f.addrs[:f.last]...), f.alive
}

func (f *failover) reached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ever
}

// answered notes that a manager answers, to be asked first the next time.
func (f *failover) answered(addr string, res *http.Response) {
	f.mu.Lock()
	f.ever, f.alive = true, true
	for i := range f.addrs {
		if f.addrs[i] == addr {
			f.last = i
		}
	}
	f.mu.Unlock()
	f.dialer.forget()
	if res.Header.Get(staleHeader) != "" && f.onStale != nil {
		f.stale.Do(func() {
			since, _ := time.Parse(time.RFC3339, res.Header.Get(leaderlessHeader)) // zero where it is not said
			f.onStale(since)
		})
	}
}

// lost notes that a manager is out of reach.
func (f *failover) lost(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.addrs[f.last] == addr {
		f.alive = false
	}
}

func reader(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }

// take reads what goes with a call, to send it to any manager.
func take(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(req.Body)
	return body, errors.Join(err, req.Body.Close())
}

// maxRefusal bounds what is read of a refusal.
const maxRefusal = 64 << 10

// refusalOf reads the words of a manager's refusal.
func refusalOf(res *http.Response) error {
	said, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	// In a stream it comes as a message with a head of five bytes, within another object.
	if i := bytes.IndexByte(said, '{'); i > 0 {
		said = said[i:]
	}
	var told struct {
		Message string
		Error   struct{ Message string }
	}
	if err := json.Unmarshal(said, &told); err != nil {
		return errors.New(res.Status)
	}
	return errors.New(cmp.Or(told.Message, told.Error.Message, res.Status))
}
