package forward

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"
)

// ending is the body of an answer that can break off. It then ends as if the leader had said itself that
// the call is unavailable, so that callers can tell it from a fault; where that cannot be said, in the
// midst of a message, it breaks off as well.
type ending struct {
	io.ReadCloser
	answer *http.Response
	from   context.Context // ends when the caller goes away
	frames frames
	rest   *bytes.Reader // what is left to say; nil before it broke off
}

func newEnding(from context.Context, res *http.Response) *ending {
	return &ending{ReadCloser: res.Body, answer: res, from: from}
}

// Read implements io.Reader.
func (e *ending) Read(p []byte) (int, error) {
	if e.rest != nil {
		return e.rest.Read(p)
	}
	n, err := e.ReadCloser.Read(p)
	e.frames.pass(p[:n])
	if err == nil || errors.Is(err, io.EOF) || e.from.Err() != nil || !e.frames.between() {
		return n, err
	}
	e.rest = bytes.NewReader(e.last())
	if n > 0 {
		return n, nil
	}
	return e.rest.Read(p)
}

const brokeOff = "the manager that led the cluster is gone or leads no longer: try again"

// last returns what ends the answer in its protocol. What gRPC says in trailers is set here.
func (e *ending) last() []byte {
	const code, text = connect.CodeUnavailable, brokeOff
	kind := e.answer.Header.Get("Content-Type")
	switch {
	case strings.HasPrefix(kind, "application/connect+"):
		// A struct of strings can be encoded.
		message, _ := json.Marshal(map[string]any{"error": map[string]string{"code": code.String(), "message": text}})
		return frame(frameConnectEnd, message)
	case strings.HasPrefix(kind, "application/grpc-web"):
		return frame(frameWebTrailers, fmt.Appendf(nil, "grpc-status: %d\r\ngrpc-message: %s\r\n", code, text))
	}
	if e.answer.Trailer == nil {
		e.answer.Trailer = http.Header{}
	}
	e.answer.Trailer.Set("Grpc-Status", strconv.Itoa(int(code)))
	e.answer.Trailer.Set("Grpc-Message", text)
	return nil
}

// Of a message on the wire: flags, of which these mark the last, then the length in four bytes.
const (
	frameHeadBytes   = 5
	frameConnectEnd  = 0x02
	frameWebTrailers = 0x80
)

func frame(flags byte, message []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))
	return append(head, message...)
}

// frames follows the messages in a stream of bytes.
type frames struct {
	head []byte // of the message under way, as far as it was there
	left int    // what its rest still lacks
}

func (f *frames) pass(b []byte) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, len(b))
			f.left, b = f.left-n, b[n:]
			continue
		}
		n := min(frameHeadBytes-len(f.head), len(b))
		f.head, b = append(f.head, b[:n]...), b[n:]
		if len(f.head) == frameHeadBytes {
			f.left = int(binary.BigEndian.Uint32(f.head[1:]))
			f.head = f.head[:0]
		}
	}
}

// between tells whether no message is under way.
func (f *frames) between() bool { return len(f.head) == 0 && f.left == 0 }
