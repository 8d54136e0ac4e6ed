package prober

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// bodyLimit is how much of a body is matched.
	bodyLimit = 64 << 10
	// answerLimit is how much is read of an answer in all: its headers may be as long as its body.
	answerLimit = 2 * bodyLimit
	// headStart is how much of a body is shown.
	headStart = 512
	// interim is how many answers there may be before the answer (1xx).
	interim = 5

	userAgent = "warren-agent"
)

// httpProbe succeeds when the answer's status and body are as expected. It does without http.Transport, which keeps
// two goroutines and two buffers for each connection: one request on one connection is all there is.
type httpProbe struct {
	port       uint16
	method     string
	target     *url.URL // path and query
	header     http.Header
	host       string // of the Host header; empty: where it listens
	status     []statusRange
	body       *regexp.Regexp
	tls        *tls.Config // nil: no TLS
	serverName string
}

type statusRange struct{ first, last int }

func compileHTTP(h *warrenv1.HttpProbe) (*httpProbe, error) {
	p := &httpProbe{
		port: uint16(h.GetPort()), method: cmp.Or(h.GetMethod(), http.MethodGet),
		header: http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}}, serverName: h.GetServerName(),
	}
	var err error
	if p.target, err = url.ParseRequestURI(cmp.Or(h.GetPath(), "/")); err != nil {
		return nil, fmt.Errorf("health.http.path: %w", errors.Unwrap(err))
	}
	given := http.Header{}
	for _, line := range h.GetHeaders() {
		name, value, found := strings.Cut(line, ":")
		if !found {
			return nil, fmt.Errorf("health.http.headers: %q is not NAME: VALUE", line)
		}
		value = strings.TrimSpace(value)
		if strings.EqualFold(name, "Host") {
			p.host = value
			continue
		}
		given.Add(name, value)
	}
	maps.Copy(p.header, given)
	if p.status, err = parseStatus(cmp.Or(h.GetStatus(), "200-399")); err != nil {
		return nil, err
	}
	if h.GetBody() != "" {
		if p.body, err = regexp.Compile(h.GetBody()); err != nil {
			return nil, fmt.Errorf("health.http.body: %w", err)
		}
	}
	if h.GetTls() {
		p.tls = &tls.Config{InsecureSkipVerify: h.GetTlsSkipVerify()}
	}
	return p, nil
}

// parseStatus reads statuses: 200, 200-299, 200,204,300-399.
func parseStatus(text string) ([]statusRange, error) {
	var ranges []statusRange
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || first > last {
			return nil, fmt.Errorf("health.http.status: %q is neither a status nor a range of them, such as 200-299", part)
		}
		ranges = append(ranges, statusRange{first, last})
	}
	return ranges, nil
}

func (*httpProbe) kind() string { return "http" }

func (h *httpProbe) run(ctx context.Context, p *Prober, at Target, timeout time.Duration, _ func()) Result {
	what := h.method + " " + h.url(at)
	conn, err := p.dial(ctx, at, h.port)
	if err != nil {
		return unreached(what, err, timeout)
	}
	// Who has this probed no longer wants to wait for its answer.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	problem, err := h.ask(ctx, conn)
	if err == nil && problem == "" {
		return Succeeded()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		what = joined(what, problem)
		problem = plain(err, timeout)
	}
	return Failed(what + ": " + problem)
}

// url is what people are told of the page: where it is dialled, not what the Host header says.
func (h *httpProbe) url(at Target) string {
	scheme := "http://"
	if h.tls != nil {
		scheme = "https://"
	}
	return scheme + at.where(h.port) + h.target.RequestURI()
}

// ask sends the request on a connection and says what is wrong with the answer; nothing if nothing is. With an error
// it says where that came up.
func (h *httpProbe) ask(ctx context.Context, conn net.Conn) (problem string, err error) {
	host := cmp.Or(h.host, conn.RemoteAddr().String())
	if h.tls != nil {
		config := h.tls.Clone()
		config.ServerName = cmp.Or(h.serverName, withoutPort(host))
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return "TLS handshake", err
		}
		conn = secured
	}
	request := &http.Request{Method: h.method, URL: h.target, Host: host, Header: h.header, ProtoMajor: 1, ProtoMinor: 1, Close: true}
	if err := request.Write(conn); err != nil {
		return "", err
	}
	limited := &io.LimitedReader{R: conn, N: answerLimit}
	response, err := readAnswer(bufio.NewReaderSize(limited, 2<<10), request)
	if err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("the answer's headers are longer than %d KiB", answerLimit>>10)
		}
		return "", err
	}
	defer response.Body.Close()
	if !h.expects(response.StatusCode) {
		start, _ := io.ReadAll(io.LimitReader(response.Body, headStart)) // what there is of it
		return joined(fmt.Sprintf("status %d", response.StatusCode), cut(clean(string(start)), headStart)), nil
	}
	if h.body == nil && (response.ContentLength < 0 || response.ContentLength > bodyLimit) {
		return "", nil // it may be without end
	}
	// A body that is short is read also where nobody asks for it: a server whose answer is cut off logs that.
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	if err != nil {
		return fmt.Sprintf("status %d, but its body does not come to an end", response.StatusCode), err
	}
	if h.body != nil && !h.body.Match(body) {
		return joined(fmt.Sprintf("status %d, but its body does not match %s", response.StatusCode, h.body), cut(clean(string(body)), headStart)), nil
	}
	return "", nil
}

// readAnswer passes over answers that announce another.
func readAnswer(r *bufio.Reader, request *http.Request) (*http.Response, error) {
	for range interim {
		response, err := http.ReadResponse(r, request)
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= http.StatusOK || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
		response.Body.Close()
	}
	return nil, errors.New("only interim answers (1xx) came")
}

func (h *httpProbe) expects(status int) bool {
	for _, r := range h.status {
		if r.first <= status && status <= r.last {
			return true
		}
	}
	return false
}

func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
