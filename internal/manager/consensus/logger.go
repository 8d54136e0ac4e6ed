package consensus

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft a logger of the kind it wants that writes to ours.
func raftLogger(to *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Debug})
	logger.RegisterSink(sink{to})
	return logger
}

type sink struct{ to *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, message string, args ...any) {
	s.to.Log(context.Background(), severity(level, message), "raft: "+message, args...) //nolint:sloglint // the message is raft's
}

// severity lowers raft's tales of its ordinary life to debug: what an operator should know of it the
// manager says itself.
func severity(level hclog.Level, message string) slog.Level {
	switch level {
	case hclog.Error:
		return slog.LevelError
	case hclog.Warn:
		if message == "heartbeat timeout reached, starting election" || message == "no known peers, aborting election" {
			return slog.LevelDebug
		}
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
