package logstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/manager/relay"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// bench is a service whose nodes the test plays, and one call of it, in a bubble of virtual time.
type bench struct {
	t     *testing.T
	store *state.Store
	s     *Service
	away  map[string]bool // nodes without a session
	asked chan *tap

	ctx    context.Context
	cancel context.CancelFunc
	got    chan string // the call's lines as TASK:TEXT, and its notices
	done   chan struct{}
	err    error
}

// tap is the node's end of a stream.
type tap struct {
	task      string
	selection *warrenv1.LogSelection
	messages  chan *warrenv1.RelayRequest
	end       chan error
	closed    chan struct{}
}

func (p *tap) Receive(ctx context.Context) (*warrenv1.RelayRequest, error) {
	select {
	case m := <-p.messages:
		return m, nil
	case err := <-p.end:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *tap) Close() { close(p.closed) }

// send gives the reader lines, each SECOND TEXT.
func (p *tap) send(lines ...string) { p.batch(false, lines...) }

// caughtUp gives the last lines that were there when the stream began.
func (p *tap) caughtUp(lines ...string) { p.batch(true, lines...) }

func (p *tap) batch(caughtUp bool, lines ...string) {
	batch := &warrenv1.LogBatch{CaughtUp: caughtUp}
	for _, l := range lines {
		var second int64
		var text string
		if _, err := fmt.Sscan(l, &second, &text); err != nil {
			panic(err)
		}
		batch.Lines = append(batch.Lines, &warrenv1.LogLine{
			TaskId: "whatever", Line: []byte(text), Time: &timestamppb.Timestamp{Seconds: second},
		})
	}
	p.messages <- &warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Logs{Logs: batch}}
}

func newBench(t *testing.T, objects ...state.Object) *bench {
	b := &bench{
		t: t, store: statetest.New(t, objects...), away: map[string]bool{}, asked: make(chan *tap, 2*maxSources),
		got: make(chan string, 1<<16), done: make(chan struct{}),
	}
	b.s = &Service{store: b.store, refs: Refs{
		Service: func(s state.Snapshot, ref string) (*warrenv1.Service, error) {
			if found := s.ServiceByName(ref); found != nil {
				return found, nil
			}
			return nil, connect.NewError(connect.CodeNotFound, errors.New("no such service"))
		},
		Task: func(s state.Snapshot, ref string) (*warrenv1.Task, error) { return s.Task(ref), nil },
	}}
	b.s.open = func(_ context.Context, node string, ask *warrenv1.OpenStream) (stream, error) {
		if b.away[node] {
			return nil, errors.New("away")
		}
		p := &tap{
			task: ask.GetLogs().GetTaskId(), selection: ask.GetLogs().GetSelection(),
			messages: make(chan *warrenv1.RelayRequest), end: make(chan error), closed: make(chan struct{}),
		}
		b.asked <- p
		return p, nil
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	t.Cleanup(b.cancel)
	return b
}

// read begins the call.
func (b *bench) read(req *warrenv1.StreamLogsRequest) {
	go func() {
		b.err = b.s.stream(b.ctx, req, func(m *warrenv1.StreamLogsResponse) error {
			for _, l := range m.GetLines() {
				b.got <- l.GetTaskName() + ":" + string(l.GetLine())
			}
			if m.GetNotice() != "" {
				b.got <- m.GetNotice()
			}
			return nil
		})
		close(b.done)
	}()
	synctest.Wait()
}

func (b *bench) service(follow bool) {
	b.read(&warrenv1.StreamLogsRequest{
		Target:    &warrenv1.StreamLogsRequest_Service{Service: "web"},
		Selection: &warrenv1.LogSelection{Follow: follow},
	})
}

// taps returns the streams that were asked for, by task.
func (b *bench) taps(n int) map[string]*tap {
	b.t.Helper()
	found := map[string]*tap{}
	for range n {
		p := <-b.asked
		found[p.task] = p
	}
	synctest.Wait()
	select {
	case p := <-b.asked:
		b.t.Fatalf("also asked for %s", p.task)
	default:
	}
	return found
}

// expect fails the test unless exactly this has come since.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	synctest.Wait()
	var got []string
	for len(b.got) > 0 {
		got = append(got, <-b.got)
	}
	if !slices.Equal(got, want) {
		b.t.Fatalf("got %q, want %q", got, want)
	}
}

// notice fails the test unless exactly one notice has come, with these words.
func (b *bench) notice(words ...string) {
	b.t.Helper()
	synctest.Wait()
	if len(b.got) != 1 {
		b.t.Fatalf("%d messages instead of a notice", len(b.got))
	}
	got := <-b.got
	for _, w := range words {
		if !strings.Contains(got, w) {
			b.t.Errorf("the notice %q does not say %q", got, w)
		}
	}
}

func (b *bench) ended(want bool) {
	b.t.Helper()
	synctest.Wait()
	select {
	case <-b.done:
		if !want || b.err != nil {
			b.t.Errorf("ended with %v", b.err)
		}
	default:
		if want {
			b.t.Error("has not ended")
		}
	}
}

// story is what most tests begin with: a service of two tasks on two nodes.
func story() []state.Object {
	return []state.Object{
		statetest.Cluster(), statetest.Node("n1"), statetest.Node("n2"), statetest.Replicated("web", 2),
		statetest.Task("t1", "web", 1, "n1"), statetest.Task("t2", "web", 2, "n2"),
	}
}

func TestWhatWasThereIsMergedByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()...)
		b.service(false)
		taps := b.taps(2)
		taps["t1"].send("1 a", "4 d")
		b.expect() // what the other has may be earlier
		taps["t2"].send("2 b", "3 c")
		b.expect("web.1:a", "web.2:b", "web.2:c")
		taps["t2"].caughtUp("5 e", "9 h")
		b.expect("web.1:d")
		taps["t1"].send("6 f")
		b.expect("web.2:e", "web.1:f")
		taps["t1"].caughtUp()
		b.expect("web.2:h")
		b.ended(true)
		<-taps["t1"].closed
		<-taps["t2"].closed
	})
}

func TestLinesBearTheNamesPeopleKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := statetest.New(t, statetest.Node("n1", func(n *warrenv1.Node) { n.Facts.Hostname = "alpha" }),
			statetest.Global("web"), statetest.Task("t1", "web", 0, "n1"))
		s := store.Snapshot()
		source := newSource(s, s.Task("t1"), 0)
		if source.name != "web.alpha" || source.hostname != "alpha" {
			t.Errorf("source %s on %s", source.name, source.hostname)
		}
	})
}

func TestLiveLinesComeOnAsTheyCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()...)
		b.service(true)
		taps := b.taps(2)
		taps["t1"].caughtUp()
		taps["t1"].send("7 live")
		b.expect() // not before the other's backlog
		taps["t2"].caughtUp("2 b")
		b.expect("web.2:b", "web.1:live")
		taps["t2"].send("9 x")
		b.expect("web.2:x")
		taps["t1"].send("8 y")
		b.expect("web.1:y")
		b.ended(false)
		b.cancel()
		<-b.done
		<-taps["t1"].closed
		<-taps["t2"].closed
	})
}

func TestTasksThatComeLaterAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, statetest.Node("n1"), statetest.Replicated("web", 2), statetest.Replicated("other", 1))
		b.service(true)
		b.taps(0)
		statetest.Put(t, b.store, statetest.Task("t1", "web", 1, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)),
			statetest.Task("x", "other", 1, "n1"))
		b.taps(0)
		statetest.Put(t, b.store, statetest.Task("t1", "web", 1, "n1", statetest.In(warrenv1.TaskState_TASK_STATE_ASSIGNED)))
		first := b.taps(1)["t1"]
		statetest.Put(t, b.store, statetest.Task("t1", "web", 1, "n1"))
		b.taps(0)
		first.caughtUp("1 a")
		b.expect("web.1:a")
		first.end <- io.EOF
		b.ended(false)
		statetest.Remove(t, b.store, state.KeyOf(b.store.Snapshot().Service("web")))
		b.ended(true)
	})
}

func TestFollowingATaskEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()...)
		b.read(&warrenv1.StreamLogsRequest{
			Target:    &warrenv1.StreamLogsRequest_Task{Task: "t1"},
			Selection: &warrenv1.LogSelection{Follow: true},
		})
		p := b.taps(1)["t1"]
		p.caughtUp("1 a")
		p.send("2 b")
		b.expect("web.1:a", "web.1:b")
		b.ended(false)
		p.end <- io.EOF
		b.ended(true)
	})
}

func TestATaskWithoutANodeHasNoOutputYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, statetest.Node("n1"), statetest.Task("t1", "web", 1, "", statetest.In(warrenv1.TaskState_TASK_STATE_PENDING)))
		b.read(&warrenv1.StreamLogsRequest{
			Target:    &warrenv1.StreamLogsRequest_Task{Task: "t1"},
			Selection: &warrenv1.LogSelection{Follow: true},
		})
		b.notice("web.1", "no node yet")
		b.ended(false)
		statetest.Put(t, b.store, statetest.Task("t1", "web", 1, "n1"))
		p := b.taps(1)["t1"]
		p.caughtUp()
		p.end <- io.EOF
		b.ended(true)
	})
}

func TestANodeThatCannotBeReachedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, append(story(), statetest.Task("t3", "web", 3, "n2"))...)
		b.away["n2"] = true
		b.service(false)
		b.notice("n2", "cannot be reached", "missing") // once for both of its tasks
		b.taps(1)["t1"].caughtUp("1 a")
		b.expect("web.1:a")
		b.ended(true)
	})
}

func TestFollowTakesUpANodeThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()...)
		b.service(true)
		taps := b.taps(2)
		taps["t1"].caughtUp()
		taps["t2"].caughtUp("5 a")
		b.expect("web.2:a")
		b.away["n2"] = true
		taps["t2"].end <- errors.New("reset")
		b.notice("n2", "when it is back")
		down := statetest.Node("n2", func(n *warrenv1.Node) { n.Status.State = warrenv1.NodeState_NODE_STATE_UNKNOWN })
		statetest.Put(t, b.store, down)
		b.taps(0)
		b.away["n2"] = false
		statetest.Put(t, b.store, statetest.Node("n2"))
		back := b.taps(1)["t2"]
		if got := back.selection.GetSince().AsTime(); !got.Equal(time.Unix(5, 1)) {
			t.Errorf("asked for what came since %v", got)
		}
		back.send("6 b")
		b.expect("web.2:b")
		// Nobody waits for a task that is removed meanwhile.
		b.away["n2"] = true
		back.end <- errors.New("reset")
		b.notice("n2")
		statetest.Remove(t, b.store, state.KeyOf(b.store.Snapshot().Task("t2")))
		b.away["n2"] = false
		statetest.Put(t, b.store, down, statetest.Node("n2"))
		b.taps(0)
	})
}

func TestABrokenStreamIsOpenedAnewAFewTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()[:5]...)
		b.service(true)
		for range maxBreaks {
			b.taps(1)["t1"].end <- errors.New("reset")
		}
		b.taps(0)
		b.notice("web.1", "incomplete", "reset")
	})
}

func TestABreakWithoutFollowIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()[:5]...)
		b.service(false)
		p := b.taps(1)["t1"]
		p.send("1 a")
		b.expect("web.1:a")
		p.end <- errors.New("reset")
		b.notice("web.1", "incomplete", "reset")
		b.ended(true)
	})
}

func TestAnAgentsRefusalIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()[:5]...)
		b.service(true)
		b.taps(1)["t1"].end <- &relay.AgentError{Reason: "no log file"}
		b.notice("web.1", "no log file")
		b.taps(0)
	})
}

func TestASilentSourceDoesNotHoldUpTheOthers(t *testing.T) {
	for _, follow := range []bool{false, true} {
		t.Run(fmt.Sprint("follow=", follow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, story()...)
				b.service(follow)
				taps := b.taps(2)
				taps["t1"].caughtUp("1 a")
				time.Sleep(maxSilence - 1)
				b.expect()
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if got := <-b.got; !strings.Contains(got, "web.2") || !strings.Contains(got, "nothing for 5s") {
					t.Errorf("told %q", got)
				}
				b.expect("web.1:a")
				b.ended(!follow)
				if follow {
					taps["t2"].send("0 late")
					b.expect("web.2:late")
				} else {
					<-taps["t2"].closed
				}
			})
		})
	}
}

func TestAUserWhoDoesNotReadStopsTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, story()...)
		b.got = make(chan string)
		b.service(true)
		taps := b.taps(2)
		taken := 0
		go func() {
			taps["t2"].caughtUp()
			for i := range 100 {
				taps["t1"].batch(i == 0, fmt.Sprint(i, " x"))
				taken++
			}
		}()
		synctest.Wait()
		// One is with the user, one in the hands of the source.
		if taken > 2 {
			t.Errorf("%d batches were taken from the node", taken)
		}
		// The state moves on meanwhile, and is followed.
		statetest.Put(t, b.store, statetest.Task("t3", "web", 3, "n1"))
		b.taps(1)
		for range 100 {
			<-b.got
		}
	})
}

func TestOnlySoManyStreamsAreOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := []state.Object{statetest.Node("n1"), statetest.Replicated("web", 1)}
		for i := range maxSources {
			objects = append(objects, statetest.Task(fmt.Sprintf("old%04d", i), "web", uint32(i+1), "n1", statetest.In(warrenv1.TaskState_TASK_STATE_FAILED)))
		}
		objects = append(objects, statetest.Task("wanted", "web", 9999, "n1"))
		b := newBench(t, objects...)
		b.service(false)
		if taps := b.taps(maxSources); taps["wanted"] == nil {
			t.Error("a running task was left out for history")
		}
		b.notice("more than 1000 tasks")
		b.cancel()
		<-b.done
	})
}

func TestAnUnknownServiceIsTheResolversToTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.service(false)
		<-b.done
		if connect.CodeOf(b.err) != connect.CodeNotFound {
			t.Errorf("got %v", b.err)
		}
	})
}

func TestALongBatchGoesOutInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		r := newReading(state.NewStore(), nil, target{}, &warrenv1.LogSelection{}, func(m *warrenv1.StreamLogsResponse) error {
			sizes = append(sizes, len(m.GetLines()))
			return nil
		})
		s := &source{turn: make(chan struct{}, 1)}
		var lines []*warrenv1.LogLine
		for range 40 {
			lines = append(lines, &warrenv1.LogLine{Line: make([]byte, 16<<10)})
		}
		if err := r.forward(chunk{source: s, lines: lines}); err != nil || len(s.turn) != 1 {
			t.Fatal(err)
		}
		if !slices.Equal(sizes, []int{16, 16, 8}) {
			t.Errorf("pieces of %v lines", sizes)
		}
	})
}

func TestAMergeIsInOrderAndLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := merge{waiting: map[*source]struct{}{}}
		feeds := map[*source][]*warrenv1.LogLine{}
		total := 0
		var order []*source
		for i := range rapid.IntRange(1, 5).Draw(t, "sources") {
			s := &source{place: i}
			seconds := rapid.SliceOfN(rapid.Int64Range(0, 20), 0, 12).Draw(t, "seconds")
			slices.Sort(seconds)
			for _, second := range seconds {
				feeds[s] = append(feeds[s], &warrenv1.LogLine{Time: &timestamppb.Timestamp{Seconds: second}})
			}
			total += len(seconds)
			order = append(order, s)
			m.join(s)
		}
		var got []*warrenv1.LogLine
		for !m.done() {
			lines, _ := m.next(rapid.IntRange(1, 1000).Draw(t, "limit"))
			got = append(got, lines...)
			for _, s := range order {
				if _, waits := m.waiting[s]; waits && rapid.Bool().Draw(t, "comes") {
					n := rapid.IntRange(0, len(feeds[s])).Draw(t, "lines")
					batch := feeds[s][:n]
					feeds[s] = feeds[s][n:]
					m.offer(s, batch, len(feeds[s]) == 0)
				}
			}
		}
		if len(got) != total || !slices.IsSortedFunc(got, func(a, b *warrenv1.LogLine) int {
			return a.GetTime().AsTime().Compare(b.GetTime().AsTime())
		}) {
			t.Fatalf("%d of %d lines, in the order %v", len(got), total, got)
		}
	})
}
