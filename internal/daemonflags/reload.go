package daemonflags

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"sync"
	"syscall"

	"github.com/cuemby/warren/internal/logging"
)

// Reloader has a daemon look at its configuration again whenever it gets SIGHUP, as systemctl reload sends. How it
// logs follows at once. What else has changed needs a restart: the log says so, and goes on with what it was.
type Reloader struct {
	// Running points at the struct of what the daemon was started with.
	Running any
	// Parse reads the command line, the environment and the configuration file into a struct of that kind anew, and
	// returns what points at it.
	Parse func() (again any, logging Logging, err error)
	Log   *logging.Log
}

// Start answers signals until ctx ends; the function it returns waits for that.
func (r Reloader) Start(ctx context.Context) (wait func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var answering sync.WaitGroup
	answering.Go(func() {
		defer signal.Stop(hangups)
		logger := r.Log.Logger()
		for {
			select {
			case <-hangups:
				r.reload(logger)
			case <-ctx.Done():
				return
			}
		}
	})
	return answering.Wait
}

func (r Reloader) reload(logger *slog.Logger) {
	again, flags, err := r.Parse()
	if err == nil {
		err = r.Log.Set(flags.level(), flags.LogFormat)
	}
	if err != nil {
		logger.Error("the configuration cannot be taken up, all stays as it was", "error", err)
		return
	}
	logger.Info("configuration read anew", "log_level", flags.LogLevel, "log_format", flags.LogFormat)
	if changed := changed(reflect.ValueOf(r.Running).Elem(), reflect.ValueOf(again).Elem()); len(changed) > 0 {
		logger.Warn("a restart is needed for these to take effect", "keys", changed)
	}
}

// changed lists the flags of two structs of one kind whose values differ, but for those that follow a reload.
func changed(before, after reflect.Value) []string {
	var names []string
	for i := range before.NumField() {
		field := before.Type().Field(i)
		switch {
		case field.Type == reflect.TypeFor[Logging]():
		case field.Anonymous:
			names = append(names, changed(before.Field(i), after.Field(i))...)
		case !reflect.DeepEqual(before.Field(i).Interface(), after.Field(i).Interface()):
			names = append(names, nameOf(field))
		}
	}
	return names
}
