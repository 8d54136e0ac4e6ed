package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of a scrape: what is wrong with who asks must not cost the daemon anything.
const (
	scrapeTimeout = 10 * time.Second
	scrapesAtOnce = 3
	closeTimeout  = time.Second
)

// CheckAddr tells what is wrong with an address to listen at; empty is for none.
func CheckAddr(addr string) error {
	if addr == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("--metrics-addr %q: it must be HOST:PORT, or empty for nowhere", addr)
	}
	return nil
}

// Server answers who asks for metrics, by plain HTTP, with GET /metrics alone.
type Server struct {
	listener net.Listener // nil for none
	server   *http.Server
	logger   *slog.Logger
}

// Listen begins to listen at addr, or nowhere where it is empty. What is optional is left out with a warning
// where it cannot be had, as when another program has the port.
func Listen(ctx context.Context, addr string, optional bool, logger *slog.Logger) (*Server, error) {
	s := &Server{logger: logger}
	if addr == "" {
		return s, nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		s.listener = l
		return s, nil
	case optional:
		logger.Warn("there are no metrics: give --metrics-addr another HOST:PORT, or none", "error", err)
		return s, nil
	default:
		return nil, fmt.Errorf("listen at --metrics-addr: %w", err)
	}
}

// Addr is where the server listens, nil where it does not.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close gives the address back, where Serve has not.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Serve answers until ctx ends, and then gives the address back.
func (s *Server) Serve(ctx context.Context, gatherer prometheus.Gatherer) {
	if s.listener == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog: complaints{s.logger}, ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeTimeout,
	}))
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: scrapeTimeout, ReadTimeout: scrapeTimeout, WriteTimeout: 2 * scrapeTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	ended := context.AfterFunc(ctx, func() { s.shut() })
	defer ended()
	s.logger.Info("metrics are at", "addr", "http://"+s.listener.Addr().String()+"/metrics")
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.logger.Error("there are no metrics any more", "error", err)
	}
}

func (s *Server) shut() {
	bounded, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.server.Shutdown(bounded) != nil {
		_ = s.server.Close()
	}
}

// complaints are the library's, of metrics that could not be read.
type complaints struct{ logger *slog.Logger }

// Println implements promhttp.Logger.
func (c complaints) Println(v ...any) {
	c.logger.Warn("some metrics could not be read", "error", fmt.Sprint(v...))
}
