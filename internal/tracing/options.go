package tracing

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Options says where spans go, and how many.
type Options struct {
	// Endpoint is the receiver's URL, http://HOST:4318 or https://…, below which /v1/traces takes spans; empty for none.
	Endpoint string
	// Headers are sent with each batch, as OTEL_EXPORTER_OTLP_HEADERS has them: KEY=VALUE,KEY=VALUE, with %XX for what is
	// not plain.
	Headers string
	// Sample is the share of traces that are begun here and recorded, 0 to 1. A trace that is begun elsewhere is recorded
	// when it is recorded there.
	Sample float64
	// Service, Version and Host are who records.
	Service, Version, Host string
}

// path is where a receiver takes spans: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request.
const path = "/v1/traces"

// On tells whether anything is recorded.
func (o Options) On() bool { return o.Endpoint != "" }

// Validate tells what is wrong with the options.
func (o Options) Validate() error {
	if !(o.Sample >= 0 && o.Sample <= 1) { // which it is not either where it is no number
		return fmt.Errorf("--trace-sample %v: it must be from 0, for no traces, to 1, for all of them", o.Sample)
	}
	if !o.On() {
		return nil
	}
	if _, err := o.url(); err != nil {
		return fmt.Errorf("--trace-endpoint: %w", err)
	}
	if _, err := o.headers(); err != nil {
		return fmt.Errorf("OTEL_EXPORTER_OTLP_HEADERS: %w", err)
	}
	return nil
}

// url is where batches are posted.
func (o Options) url() (*url.URL, error) {
	const form = "it must be http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:4318"
	u, err := url.Parse(o.Endpoint)
	switch {
	case err != nil: // which repeats the URL, with a password in it perhaps
		return nil, errors.New(form)
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return nil, fmt.Errorf("%q: %s", u.Redacted(), form)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q: there is something behind the path; %s", u.Redacted(), form)
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), path) + path
	return u, nil
}

// headers are those of each batch. What is wrong is told without their values, which are secrets mostly.
func (o Options) headers() (map[string]string, error) {
	headers := map[string]string{}
	for i, item := range strings.Split(o.Headers, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		key, value, is := strings.Cut(item, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !is || key == "" {
			return nil, fmt.Errorf("item %d: it must be KEY=VALUE", i+1)
		}
		plain, err := url.PathUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("item %d, %s: a %% in it must be followed by two hexadecimal digits", i+1, key)
		}
		headers[key] = plain
	}
	return headers, nil
}
