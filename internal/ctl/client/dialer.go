package client

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// stagger is how long one manager is waited for before another is dialled beside it.
const stagger = 250 * time.Millisecond

// dialer connects to managers. Of several it finds one that is there, however many machines are off.
type dialer struct {
	net.Dialer
	socket string

	mu    sync.Mutex
	ready map[string]net.Conn // won a race, not used yet
}

func newDialer(socket string) *dialer {
	return &dialer{Dialer: net.Dialer{Timeout: dialTimeout}, socket: socket, ready: map[string]net.Conn{}}
}

// dial is a http.Transport's DialContext.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network == "tcp" && addr == "manager:80" {
		return d.DialContext(ctx, "unix", d.socket)
	}
	d.mu.Lock()
	conn := d.ready[addr]
	delete(d.ready, addr)
	d.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	return d.DialContext(ctx, network, addr)
}

// forget closes what won a race and was not needed after all.
func (d *dialer) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr, conn := range d.ready {
		conn.Close()
		delete(d.ready, addr)
	}
}

func (d *dialer) keep(addr string, conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if before := d.ready[addr]; before != nil {
		before.Close()
	}
	d.ready[addr] = conn
}

// race dials addresses, each a little after the one before it or as soon as that has failed, until one
// takes the connection. It returns them with that one in front, less those that failed.
func (d *dialer) race(ctx context.Context, addrs []string) (left []string, failed []Try) {
	type outcome struct {
		addr string
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	outcomes := make(chan outcome)
	var dialling sync.WaitGroup
	defer dialling.Wait()
	defer cancel()
	waiting, left := addrs, slices.Clone(addrs)
	next := time.NewTimer(0)
	defer next.Stop()
	for under := 0; under > 0 || len(waiting) > 0; {
		select {
		case <-next.C:
			if len(waiting) == 0 {
				continue
			}
			addr := waiting[0]
			waiting = waiting[1:]
			under++
			dialling.Go(func() {
				conn, err := d.DialContext(ctx, "tcp", addr)
				select {
				case outcomes <- outcome{addr, conn, err}:
				case <-ctx.Done():
					if conn != nil {
						conn.Close()
					}
				}
			})
			next.Reset(stagger)
		case o := <-outcomes:
			under--
			i := slices.Index(left, o.addr)
			left = slices.Delete(left, i, i+1)
			if o.err == nil {
				d.keep(o.addr, o.conn)
				return slices.Insert(left, 0, o.addr), failed
			}
			failed = append(failed, Try{Addr: o.addr, Err: o.err})
			next.Reset(0)
		case <-ctx.Done():
			return nil, failed
		}
	}
	return left, failed
}
