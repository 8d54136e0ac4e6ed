package watchdog

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

func TestADaemonThatAnswersPingsAndOneThatHangsDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var hangs atomic.Bool
		var pings atomic.Int32
		ask := func(ctx context.Context) error {
			if hangs.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			keep(ctx, time.Second, ask, func() { pings.Add(1) }, slog.New(slog.DiscardHandler))
		}()
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if got := pings.Load(); got != 3 {
			t.Errorf("%d pings in 2.5 s, want 3", got)
		}
		hangs.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := pings.Load(); got != 3 {
			t.Errorf("%d pings of one that hangs, want none", got-3)
		}
		hangs.Store(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if pings.Load() < 5 {
			t.Error("no pings once it answers again")
		}
		cancel()
		<-done
	})
}

// A machine that is short of memory, or of processors, makes every answer late.
func TestADaemonThatAnswersLateIsNotTakenForOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every, within = 20 * time.Second, time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		ask := func(ctx context.Context) error {
			select {
			case <-time.After(35 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		last, longest := time.Now(), time.Duration(0)
		var mu sync.Mutex
		ping := func() {
			mu.Lock()
			defer mu.Unlock()
			longest, last = max(longest, time.Since(last)), time.Now()
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			keep(ctx, every, ask, ping, slog.New(slog.DiscardHandler))
		}()
		time.Sleep(10 * time.Minute)
		ping()
		if longest >= within {
			t.Errorf("%v without a ping", longest)
		}
		cancel()
		<-done
	})
}

func TestARefusalIsAnAnswerAndSilenceIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	_, refusing := warrenv1connect.NewManagerServiceHandler(warrenv1connect.UnimplementedManagerServiceHandler{})
	mux := http.NewServeMux()
	mux.Handle("/", refusing)
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-hang })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if err := call(t.Context(), path, warrenv1connect.ManagerServiceGetManagerProcedure); err != nil {
		t.Errorf("refused: %v", err)
	}
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := call(brief, path, "/hang"); err == nil {
		t.Error("silence counted as an answer")
	}
	close(hang)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if err := call(t.Context(), path, warrenv1connect.ManagerServiceGetManagerProcedure); err == nil {
		t.Error("gone, and counted as an answer")
	}
}
