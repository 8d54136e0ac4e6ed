package tracing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	// postTimeout bounds one try, and tries how often a batch is tried before its spans are given up.
	postTimeout = 5 * time.Second
	tries       = 3
	// firstPause is that before the second try; it doubles.
	firstPause = time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 4 << 10
)

// poster sends batches to a receiver. It implements otlptrace.Client. The exporter that the library has for HTTP brings
// gRPC with it: see docs/decisions/0017-traces.md.
type poster struct {
	url     *url.URL
	headers map[string]string
	client  *http.Client
	pause   time.Duration
	closing context.Context // ends when what is left is given up
	giveUp  context.CancelFunc
	logger  *slog.Logger
	failing bool // it has been said that nothing arrives; batches are sent one at a time
}

func newPoster(o Options, logger *slog.Logger) (*poster, error) {
	to, err := o.url()
	if err != nil {
		return nil, err
	}
	headers, err := o.headers()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: postTimeout, ResponseHeaderTimeout: postTimeout,
	}
	p := &poster{url: to, headers: headers, client: &http.Client{Transport: transport, Timeout: postTimeout}, pause: firstPause, logger: logger}
	p.closing, p.giveUp = context.WithCancel(context.Background())
	return p, nil
}

// Start implements otlptrace.Client.
func (*poster) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (p *poster) Stop(context.Context) error {
	p.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. What cannot be sent is given up, and said once: a receiver that is away is no
// reason to do without a cluster.
func (p *poster) UploadTraces(ctx context.Context, spans []*tracev1.ResourceSpans) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.closing, cancel)()
	// An ExportTraceServiceRequest has the same form, and belongs to a package that needs gRPC.
	body, err := proto.Marshal(&tracev1.TracesData{ResourceSpans: spans})
	if err == nil {
		err = p.deliver(ctx, body)
	}
	switch {
	case err != nil && !p.failing:
		p.logger.Warn("spans are lost: is the receiver at --trace-endpoint up?", "error", err)
	case err == nil && p.failing:
		p.logger.Info("spans are received again")
	}
	p.failing = err != nil
	return nil
}

// deliver tries until the receiver has a batch, or refuses it for good.
func (p *poster) deliver(ctx context.Context, body []byte) error {
	pause := p.pause
	for try := 1; ; try++ {
		again, err := p.post(ctx, body)
		if err == nil || !again || try == tries {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause *= 2
	}
}

// post tries once. again tells whether another try makes sense.
func (p *poster) post(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	for key, value := range p.headers {
		req.Header.Set(key, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	res, err := p.client.Do(req)
	if err != nil {
		return true, fmt.Errorf("send spans: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // so that the connection can be used again
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	if res.StatusCode/100 != 2 {
		return again, fmt.Errorf("send spans: %s answers %s", p.url.Redacted(), res.Status)
	}
	return false, nil
}
