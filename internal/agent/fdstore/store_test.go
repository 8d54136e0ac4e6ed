package fdstore

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is systemd as far as the store speaks to it.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	held map[string][]int // descriptors by name
}

func newManager(t *testing.T) *manager {
	t.Helper()
	address := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", address)
	return &manager{t: t, conn: conn, held: map[string][]int{}}
}

// hear takes the next message.
func (m *manager) hear() {
	m.t.Helper()
	text, rights := make([]byte, 4096), make([]byte, 4096)
	if err := m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	n, rn, _, _, err := m.conn.ReadMsgUnix(text, rights)
	if err != nil {
		m.t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.SplitSeq(string(text[:n]), "\n") {
		key, value, _ := strings.Cut(line, "=")
		said[key] = value
	}
	name := said["FDNAME"]
	switch {
	case said["FDSTORE"] == "1" && said["FDPOLL"] == "0":
		messages, err := unix.ParseSocketControlMessage(rights[:rn])
		if err != nil || len(messages) != 1 {
			m.t.Fatalf("%v in %q", err, rights[:rn])
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			m.t.Fatal(err)
		}
		m.held[name] = append(m.held[name], fds...)
	case said["FDSTOREREMOVE"] == "1":
		for _, fd := range m.held[name] {
			unix.Close(fd)
		}
		delete(m.held, name)
	default:
		m.t.Fatalf("heard %q", text[:n])
	}
}

// giveBack is what a process that systemd starts next begins with.
func (m *manager) giveBack(s *Store) {
	m.t.Helper()
	for name, fds := range m.held {
		for _, fd := range fds {
			again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				m.t.Fatal(err)
			}
			s.inherited[name] = append(s.inherited[name], os.NewFile(uintptr(again), name))
		}
	}
}

func pipe(t *testing.T) (*os.File, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	return reader, writer
}

func TestAKeptPipeHoldsItsContentForTheNextProcess(t *testing.T) {
	m := newManager(t)
	first := Inherit()
	reader, writer := pipe(t)
	if err := first.Keep("a.stdout", reader); err != nil {
		t.Fatal(err)
	}
	m.hear()
	reader.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	writer.Close()

	second := Inherit()
	m.giveBack(second)
	if got := second.Inherited(); !slices.Equal(got, []string{"a.stdout"}) {
		t.Errorf("inherited %q", got)
	}
	got := second.Take("a.stdout")
	if got == nil || second.Take("a.stdout") != nil {
		t.Fatal("the file is there once")
	}
	defer got.Close()
	if text, err := io.ReadAll(got); err != nil || !bytes.Equal(text, []byte("last words")) {
		t.Errorf("read %q, %v", text, err)
	}
	if err := second.Drop("a.stdout"); err != nil {
		t.Fatal(err)
	}
	m.hear()
	if len(m.held) > 0 {
		t.Errorf("still held: %v", m.held)
	}
}

func TestWhatIsDroppedUntakenIsClosed(t *testing.T) {
	newManager(t)
	s := Inherit()
	reader, writer := pipe(t)
	s.inherited["a.stdout"] = []*os.File{reader}
	if err := s.Drop("a.stdout"); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteString("to nobody"); err == nil {
		t.Error("somebody has the pipe open")
	}
	if got := s.Inherited(); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

func TestWithoutSystemdNothingIsHeldAndNothingFails(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s := Inherit()
	reader, _ := pipe(t)
	if err := s.Keep("a", reader); err != nil {
		t.Error(err)
	}
	if err := s.Drop("a"); err != nil {
		t.Error(err)
	}
	if s.Take("a") != nil || len(s.Inherited()) > 0 {
		t.Error("there is something")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestASystemdThatIsGoneIsAnErrorAndItsSuccessorIsSpokenTo(t *testing.T) {
	m := newManager(t)
	s := Inherit()
	if err := s.Drop("a"); err != nil {
		t.Fatal(err)
	}
	m.conn.Close()
	if err := s.Drop("b"); err == nil {
		t.Error("nobody listened, and no word of it")
	}
	next := newManager(t)
	s.socket = os.Getenv("NOTIFY_SOCKET")
	next.held["c"] = nil
	if err := s.Drop("c"); err != nil {
		t.Fatal(err)
	}
	next.hear()
}
