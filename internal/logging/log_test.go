package logging

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLoggersFollowWhatTheLogIsSetTo(t *testing.T) {
	var out bytes.Buffer
	l, err := New(&out, slog.LevelInfo, Auto)
	if err != nil {
		t.Fatal(err)
	}
	plain := l.Logger()
	dressed := plain.With("node", "n1").WithGroup("task").With("id", "t1")
	say := func() string {
		out.Reset()
		plain.Debug("quiet")
		dressed.Info("said", "exit", 1)
		return out.String()
	}
	if got := say(); !strings.Contains(got, "level=INFO msg=said node=n1 task.id=t1 task.exit=1\n") || strings.Contains(got, "quiet") {
		t.Errorf("text: %s", got)
	}
	if err := l.Set(slog.LevelDebug, JSON); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(say()), "\n")
	var entry struct {
		Msg, Node string
		Task      struct {
			ID   string
			Exit int
		}
	}
	if len(lines) != 2 || json.Unmarshal([]byte(lines[1]), &entry) != nil ||
		entry.Msg != "said" || entry.Node != "n1" || entry.Task.ID != "t1" || entry.Task.Exit != 1 {
		t.Errorf("JSON: %q", lines)
	}
	if err := l.Set(slog.LevelError, "xml"); err == nil || !strings.Contains(err.Error(), "journal") {
		t.Errorf("an unknown format: %v", err)
	}
	if !plain.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("a change that failed changed the level")
	}
	if err := l.Set(slog.LevelWarn, Text); err != nil {
		t.Fatal(err)
	}
	if got := say(); got != "" {
		t.Errorf("below the level: %s", got)
	}
}

func TestAnEntryOfTheJournalReadsAsALineAndHasFields(t *testing.T) {
	var fields bytes.Buffer
	l := &line{}
	h := &entry{
		fields: slog.NewJSONHandler(&fields, nil), line: l,
		text: slog.NewTextHandler(&l.buf, &slog.HandlerOptions{ReplaceAttr: attributesAlone}),
	}
	logger := slog.New(h).With("node", "n1")
	logger.Info("node disconnected", "why", "its agent's session broke")
	logger.Info("stopped")
	slog.New(h).Warn("alone")
	var got []string
	for text := range strings.SplitSeq(strings.TrimSpace(fields.String()), "\n") {
		var e struct{ Msg, Node, Why string }
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Msg+"|"+e.Node+"|"+e.Why)
	}
	want := []string{
		`node disconnected node=n1 why="its agent's session broke"|n1|its agent's session broke`,
		`stopped node=n1|n1|`, `alone||`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", got)
	}
}

func TestFieldsAreNamesThatTheJournalTakes(t *testing.T) {
	for key, want := range map[string]string{"node": "WARREN_NODE", "data_dir": "WARREN_DATA_DIR", "a-b.c ü": "WARREN_A_B_C__", "_x": "WARREN__X"} {
		if got := field(key); got != want {
			t.Errorf("field(%q) = %q, want %q", key, got, want)
		}
	}
	if got := plain(slog.DurationValue(1500 * time.Millisecond)).String(); got != "1.5s" {
		t.Errorf("a duration reads %q", got)
	}
}
