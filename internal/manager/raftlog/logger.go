// Package raftlog gives raft a logger of the kind it wants that writes to ours, for the packages that
// start raft and carry its messages.
package raftlog

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// New returns a logger for raft that writes to the given one.
func New(to *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Debug})
	logger.RegisterSink(sink{to})
	return logger
}

type sink struct{ to *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, message string, args ...any) {
	s.to.Log(context.Background(), severity(level, message), "raft: "+message, args...) //nolint:sloglint // the message is raft's
}

// ordinary begins what raft says as a warning or an error about its ordinary life: that a member is
// away, that it stands for election, that a request came from a member that has fallen behind, and of what
// the node tells itself.
var ordinary = []string{
	"heartbeat timeout reached", "no known peers", "not part of stable configuration", "Election timeout reached",
	"failed to contact", "failed to heartbeat to", "failed to appendEntries to", "failed to pipeline appendEntries",
	"failed to start pipeline replication to", "failed to make requestVote RPC", "failed to get log", "failed to get previous log",
	"failed to decode incoming command", "failed to flush response", "peer has newer term", "previous log term mis-match",
	"appendEntries rejected", "rejecting vote request", "rejecting pre-vote request", "duplicate requestVote", "clearing log suffix",
	"failed to commit logs", "failed to append to logs", "new leader elected", "skipping application of old log",
}

// severity lowers raft's tales of its ordinary life to debug: what an operator should know of it the
// manager says itself.
func severity(level hclog.Level, message string) slog.Level {
	for _, beginning := range ordinary {
		if strings.HasPrefix(message, beginning) {
			return slog.LevelDebug
		}
	}
	switch level {
	case hclog.Error:
		return slog.LevelError
	case hclog.Warn:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
