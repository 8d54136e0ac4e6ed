package wireguard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// process is a device of userspace: a connection to the process that it lives in, which ends when the
// process does.
//
// A connection begins with one line of Warren's own and the line that answers it (serve.go). What follows is
// WireGuard's configuration protocol: a request at a time, each answered, both ended by an empty line.
type process struct {
	socket, namespace, name string

	conn    net.Conn
	answers chan string
	gone    chan struct{} // closed when the connection has ended
	release func() error

	mu sync.Mutex // held during a request
}

func openProcess(ctx context.Context, socket, name string, mtu int) (*process, error) {
	here, err := namespace()
	if err != nil {
		return nil, err
	}
	conn, r, err := call(ctx, socket, openLine(here, name, mtu))
	if err != nil {
		return nil, err
	}
	p := &process{
		socket: socket, namespace: here, name: name,
		conn: conn, answers: make(chan string, 1), gone: make(chan struct{}),
	}
	p.release = sync.OnceValue(func() error {
		err := conn.Close()
		<-p.gone
		return err
	})
	go func() {
		defer close(p.gone)
		p.hear(r)
	}()
	return p, nil
}

// call opens a connection by its first line.
func call(ctx context.Context, socket, line string) (_ net.Conn, _ *bufio.Reader, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("speak to the WireGuard process at %s: %w", socket, err)
		}
	}()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if absent(err) {
		return nil, nil, fmt.Errorf("%w: start warren-wireguard.socket, or \"warren-agent wireguard --socket %s\"", err, socket)
	}
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := bufio.NewReader(conn)
	answer, err := "", conn.SetDeadline(deadline(ctx))
	if err == nil {
		_, err = conn.Write([]byte(line))
	}
	if err == nil {
		answer, err = r.ReadString('\n')
	}
	if !stop() {
		err = ctx.Err()
	}
	if err == nil {
		err = readAnswer(answer)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, r, nil
}

// absent tells whether nobody listens at a socket.
func absent(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) }

// deadline is that of ctx; the zero time, which is none, where it has none.
func deadline(ctx context.Context) time.Time {
	at, _ := ctx.Deadline()
	return at
}

// hear takes the answers until the connection ends.
func (p *process) hear(r *bufio.Reader) {
	var answer strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line != "\n" {
			answer.WriteString(line)
			continue
		}
		select {
		case p.answers <- answer.String():
			answer.Reset()
		default: // to nothing that was asked
			p.conn.Close()
			return
		}
	}
}

// request asks for something and returns the answer. Where ctx ends before it is there, the connection
// ends as well: the answer would be taken for that to the next request.
func (p *process) request(ctx context.Context, text string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	defer stop()
	_, err := p.conn.Write([]byte(text))
	if err == nil {
		select {
		case answer := <-p.answers:
			return checkErrno(answer)
		case <-p.gone:
		}
	}
	// Half a request may be under way.
	p.conn.Close()
	if ended := ctx.Err(); ended != nil {
		return "", fmt.Errorf("wait for the WireGuard process: %w", ended)
	}
	return "", errors.Join(errors.New("the WireGuard process is gone"), err)
}

// checkErrno takes the last line off an answer, which says how it went.
func checkErrno(answer string) (string, error) {
	at := strings.LastIndex(answer, "errno=")
	if at < 0 {
		return "", errors.New("the WireGuard process gave half an answer")
	}
	number, err := strconv.Atoi(strings.TrimSpace(answer[at+len("errno="):]))
	if err != nil {
		return "", fmt.Errorf("the WireGuard process gave half an answer: %w", err)
	}
	if number != 0 {
		return "", fmt.Errorf("the WireGuard process refuses: %w", unix.Errno(max(number, -number)))
	}
	return answer[:at], nil
}

func (p *process) lost() <-chan struct{} { return p.gone }

func (p *process) close() error {
	err := p.release()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *process) read(ctx context.Context) (Config, []PeerStatus, error) {
	answer, err := p.request(ctx, "get=1\n\n")
	if err != nil {
		return Config{}, nil, err
	}
	c, status, err := decode(answer)
	if err != nil {
		return Config{}, nil, fmt.Errorf("understand the WireGuard process: %w", err)
	}
	return c, status, nil
}

func (p *process) write(ctx context.Context, d delta) error {
	_, err := p.request(ctx, "set=1\n"+encode(d)+"\n")
	return err
}

// setMTU opens the device again: with another MTU that is how to change it.
func (p *process) setMTU(ctx context.Context, mtu int) error {
	conn, _, err := call(ctx, p.socket, openLine(p.namespace, p.name, mtu))
	if err != nil {
		return err
	}
	return conn.Close()
}

func (p *process) remove(ctx context.Context) error {
	conn, _, err := call(ctx, p.socket, removeLine(p.namespace, p.name))
	if absent(err) {
		return nil // and so is the device
	}
	if err != nil {
		return err
	}
	return conn.Close()
}
