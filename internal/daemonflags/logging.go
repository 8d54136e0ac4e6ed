package daemonflags

import (
	"io"
	"log/slog"

	"github.com/cuemby/warren/internal/logging"
)

// Logging is how a daemon logs; embed it in a daemon's struct.
type Logging struct {
	LogLevel  string         `default:"info" enum:"debug,info,warn,error" help:"debug, info, warn or error. Takes effect at a reload."`
	LogFormat logging.Format `default:"auto" enum:"auto,text,json,journal" help:"text, json, or journal: fields of systemd's journal. auto is journal where standard error goes there, else text. Takes effect at a reload."`
}

// Log returns a log of the level and format that the flags say.
func (f Logging) Log(to io.Writer) (*logging.Log, error) {
	return logging.New(to, f.level(), f.LogFormat)
}

func (f Logging) level() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // one of the enum's
	return level
}
