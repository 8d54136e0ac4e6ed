package backupfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/backupfile"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// saved is a state of objects in the form of a raft snapshot.
type saved struct {
	format  uint32
	objects []*statev1.Object
}

func (s saved) Save(w io.Writer) error {
	if _, err := protodelim.MarshalTo(w, &statev1.SnapshotHeader{Format: s.format, Index: 7, Objects: uint64(len(s.objects))}); err != nil {
		return err
	}
	for _, o := range s.objects {
		if _, err := protodelim.MarshalTo(w, o); err != nil {
			return err
		}
	}
	return nil
}

func meta(id string) *warrenv1.Meta { return &warrenv1.Meta{Id: id, Version: 3} }

func small() saved {
	return saved{1, []*statev1.Object{
		{Kind: &statev1.Object_Cluster{Cluster: &warrenv1.Cluster{Meta: meta("c")}}},
		{Kind: &statev1.Object_Node{Node: &warrenv1.Node{Meta: meta("n1")}}},
		{Kind: &statev1.Object_Service{Service: &warrenv1.Service{Meta: meta("s1")}}},
		{Kind: &statev1.Object_Task{Task: &warrenv1.Task{Meta: meta("t1")}}},
		{Kind: &statev1.Object_Task{Task: &warrenv1.Task{Meta: meta("t2")}}},
		{Kind: &statev1.Object_Member{Member: &statev1.Member{Meta: meta("m1")}}},
		{Kind: &statev1.Object_User{User: &warrenv1.User{Meta: meta("u")}}},
		{Kind: &statev1.Object_Authority{Authority: &statev1.Authority{Meta: meta("a")}}},
	}}
}

func header() *statev1.BackupHeader {
	return &statev1.BackupHeader{
		ClusterId: "c", ClusterName: "shop", Version: "1.2.3", CreatedAt: timestamppb.New(time.Unix(1e9, 0)), Index: 7,
		ClusterKey: bytes.Repeat([]byte{7}, 32),
	}
}

func write(t testing.TB, s backupfile.State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := backupfile.Write(&b, header(), s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestABackupTellsWhatIsInIt(t *testing.T) {
	file := write(t, small())
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(file), "byte by byte": iotest.OneByteReader(bytes.NewReader(file)), "with its end": iotest.DataErrReader(bytes.NewReader(file))} {
		c, err := backupfile.Check(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !proto.Equal(c.Header, header()) || c.Size != int64(len(file)) || c.Objects != 8 || c.Nodes != 1 || c.Services != 1 ||
			c.Tasks != 2 || c.Users != 1 || len(c.Managers) != 1 || c.Managers[0] != "m1" {
			t.Errorf("%s: %+v", name, c)
		}
		var want bytes.Buffer
		if err := small().Save(&want); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c.State(bytes.NewReader(file))); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: the state is %d bytes, not %d, %v", name, len(got), want.Len(), err)
		}
	}
}

func TestABackupThatIsCutShortAnywhereIsNamedSo(t *testing.T) {
	file := write(t, small())
	for n := range file {
		if _, err := backupfile.Check(bytes.NewReader(file[:n])); !errors.Is(err, backupfile.ErrTruncated) {
			t.Fatalf("cut at byte %d of %d: %v", n, len(file), err)
		}
	}
}

func TestABackupThatIsAlteredAnywhereIsRefused(t *testing.T) {
	file := write(t, small())
	end := len(file) - 40 // of what is summed up, but for the mark of the end
	for i := range file {
		altered := bytes.Clone(file)
		altered[i] ^= 0x10
		_, err := backupfile.Check(bytes.NewReader(altered))
		want := backupfile.ErrAltered
		switch {
		case i < 8:
			want = backupfile.ErrNotBackup
		case i < 12:
			want = backupfile.ErrNewer
		case i >= end && i < end+8:
			want = backupfile.ErrTruncated
		}
		if !errors.Is(err, want) {
			t.Errorf("byte %d of %d: %v", i, len(file), err)
		}
	}
	if _, err := backupfile.Check(bytes.NewReader(append(file, 0))); !errors.Is(err, backupfile.ErrTruncated) {
		t.Errorf("with more behind it: %v", err)
	}
}

func TestSomethingElseIsNoBackup(t *testing.T) {
	for _, text := range []string{"hello", strings.Repeat("hello", 100), "age-encryption.org/v1\n"} {
		if _, err := backupfile.Check(strings.NewReader(text)); !errors.Is(err, backupfile.ErrNotBackup) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	failing := errors.New("disk on fire")
	file := write(t, small())
	for _, n := range []int{0, 20, len(file)} {
		r := io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(failing))
		if _, err := backupfile.Check(r); !errors.Is(err, failing) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestANewerFormatIsRefusedInWords(t *testing.T) {
	file := write(t, small())
	binary.BigEndian.PutUint32(file[8:], 2)
	_, err := backupfile.Check(bytes.NewReader(file))
	if !errors.Is(err, backupfile.ErrNewer) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("the file's: %v", err)
	}
	newer := small()
	newer.format = 2
	_, err = backupfile.Check(bytes.NewReader(write(t, newer)))
	if !errors.Is(err, backupfile.ErrNewer) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("the state's: %v", err)
	}
}

type fewer struct{}

func (fewer) Save(w io.Writer) error {
	_, err := protodelim.MarshalTo(w, &statev1.SnapshotHeader{Format: 1, Objects: 5})
	return err
}

func TestAStateThatDoesNotHoldWhatItSaysIsRefusedAlthoughTheChecksumIsRight(t *testing.T) {
	if _, err := backupfile.Check(bytes.NewReader(write(t, fewer{}))); err == nil || !strings.Contains(err.Error(), "object 1 of 5") {
		t.Errorf("got %v", err)
	}
}

type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestAWriterThatFailsIsSaid(t *testing.T) {
	size := len(write(t, small()))
	for n := range size {
		if err := backupfile.Write(&full{n}, header(), small()); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestWhateverIsWrittenIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := saved{format: 1}
		for range rapid.IntRange(0, 50).Draw(t, "objects") {
			name := strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 100, 70_000}).Draw(t, "size"))
			s.objects = append(s.objects, &statev1.Object{Kind: &statev1.Object_Service{Service: &warrenv1.Service{Meta: meta("s"), Spec: &warrenv1.ServiceSpec{Name: name}}}})
		}
		var file, want bytes.Buffer
		if err := errors.Join(backupfile.Write(&file, header(), s), s.Save(&want)); err != nil {
			t.Fatal(err)
		}
		c, err := backupfile.Check(bytes.NewReader(file.Bytes()))
		if err != nil || c.Services != len(s.objects) {
			t.Fatalf("%+v, %v", c, err)
		}
		if got, err := io.ReadAll(c.State(bytes.NewReader(file.Bytes()))); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%d bytes of %d, %v", len(got), want.Len(), err)
		}
	})
}

func FuzzCheck(f *testing.F) {
	file := write(f, small())
	f.Add(file)
	f.Add(file[:20])
	f.Add([]byte("WRNBKUP\n\x00\x00\x00\x01\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := backupfile.Check(bytes.NewReader(b))
		if err == nil && c.Size != int64(len(b)) {
			t.Errorf("%d bytes of %d", c.Size, len(b))
		}
		if (err == nil) == (c == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
