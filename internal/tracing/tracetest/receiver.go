package tracetest

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span that was received.
type Span struct {
	Trace, ID, Parent string // in hexadecimal digits
	Name              string
	// Service and Host are who recorded it.
	Service, Host string
	Began, Ended  time.Time
	Failed        string // why; empty where it did not
	Attributes    map[string]string
	Kind          string
}

// Receiver takes spans. It serves POST /v1/traces, and tells at GET / what it has taken,
// at GET /TRACE what of that trace. It is safe for concurrent use.
type Receiver struct {
	mu      sync.Mutex
	spans   []Span
	headers []http.Header
	more    chan struct{} // closed when there are more spans
}

// NewReceiver returns a receiver that has taken nothing.
func NewReceiver() *Receiver { return &Receiver{more: make(chan struct{})} }

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.Method == http.MethodPost && req.URL.Path == "/v1/traces":
		if err := r.take(req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf") // an answer without fields is empty
	case req.Method == http.MethodGet:
		of := strings.TrimPrefix(req.URL.Path, "/")
		_, _ = io.WriteString(w, Tell(slices.DeleteFunc(r.Spans(), func(s Span) bool { return of != "" && s.Trace != of })))
	default:
		http.NotFound(w, req)
	}
}

func (r *Receiver) take(req *http.Request) error {
	if got := req.Header.Get("Content-Type"); got != "application/x-protobuf" {
		return fmt.Errorf("a Content-Type of %q", got)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	var data tracev1.TracesData
	if err := proto.Unmarshal(body, &data); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers = append(r.headers, req.Header)
	for _, of := range data.GetResourceSpans() {
		who := words(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, Span{
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Name: s.GetName(), Service: who["service.name"], Host: who["host.name"],
					Began: time.Unix(0, int64(s.GetStartTimeUnixNano())), Ended: time.Unix(0, int64(s.GetEndTimeUnixNano())),
					Failed: s.GetStatus().GetMessage(), Attributes: words(s.GetAttributes()), Kind: s.GetKind().String(),
				})
			}
		}
	}
	close(r.more)
	r.more = make(chan struct{})
	return nil
}

func words(attributes []*commonv1.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		if v, is := a.GetValue().GetValue().(*commonv1.AnyValue_IntValue); is {
			all[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
			continue
		}
		all[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return all
}

// Spans returns what has been taken.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Headers returns those that the batches came with.
func (r *Receiver) Headers() []http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.headers)
}

// Await waits until there are spans of which enough says true, and returns all there are; false where ctx ends first.
func (r *Receiver) Await(ctx context.Context, enough func([]Span) bool) ([]Span, bool) {
	for {
		r.mu.Lock()
		spans, more := slices.Clone(r.spans), r.more
		r.mu.Unlock()
		if enough(spans) {
			return spans, true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return spans, false
		}
	}
}

// Tell draws traces as trees, a line for each span:
//
//	trace 4bf92f3577b34da6a3ce929d0e0e4736
//	  ServiceService/CreateService (warren-manager on m1, 12ms)
//	    task web.1 (warren-manager on m1, 340ms)
//
// A span whose parent has not come stands below its trace.
func Tell(spans []Span) string {
	slices.SortStableFunc(spans, func(a, b Span) int { return a.Began.Compare(b.Began) })
	known, below := map[string]bool{}, map[string][]Span{}
	for _, s := range spans {
		known[s.Trace+s.ID] = true
	}
	var traces []string
	for _, s := range spans {
		above := s.Trace
		if known[s.Trace+s.Parent] && s.Parent != "" {
			above += s.Parent
		} else if len(below[above]) == 0 {
			traces = append(traces, s.Trace)
		}
		below[above] = append(below[above], s)
	}
	var out strings.Builder
	var draw func(above, indent string)
	draw = func(above, indent string) {
		for _, s := range below[above] {
			name := s.Name
			if task := s.Attributes["warren.task"]; task != "" {
				name += " " + task
			}
			if who := s.Attributes["warren.writer"]; who != "" {
				name += " of " + who
			}
			fmt.Fprintf(&out, "%s%s (%s on %s, %v)", indent, name, s.Service, s.Host, s.Ended.Sub(s.Began).Round(time.Microsecond))
			if s.Failed != "" {
				fmt.Fprintf(&out, " failed: %s", s.Failed)
			}
			out.WriteByte('\n')
			draw(s.Trace+s.ID, indent+"  ")
		}
	}
	for _, of := range traces {
		fmt.Fprintf(&out, "trace %s\n", of)
		draw(of, "  ")
	}
	return out.String()
}
