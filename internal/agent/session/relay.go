package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	maxStreams    = 64 // served at once
	maxRefusals   = 64 // being refused at once; further ones are dropped, and end by the manager's patience
	refuseTimeout = 5 * time.Second
	endTimeout    = 5 * time.Second // for the manager to end a stream that has been served
)

// openStream dials back in the background.
func (l *line) openStream(ctx context.Context, manager string, open *warrenv1.OpenStream) {
	id := open.GetStreamId()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, already := l.open[id]; already {
		return
	}
	serve := l.serve
	var cancel context.CancelFunc
	switch n := len(l.open); {
	case n >= maxStreams+maxRefusals:
		l.Logger.Warn("dropped a stream: too many are open", "open", n)
		return
	case n >= maxStreams:
		serve = refuse("the node serves too many streams already; try again when some have ended")
		ctx, cancel = context.WithTimeout(ctx, refuseTimeout)
	default:
		ctx, cancel = context.WithCancel(ctx)
	}
	l.open[id] = cancel
	l.streams.Go(func() {
		defer l.closeStream(id)
		if err := l.relay(ctx, manager, open, serve); err != nil && ctx.Err() == nil {
			l.Logger.Debug("a stream ended early", "stream", id, "error", err)
		}
	})
}

// closeStream ends a stream and forgets it.
func (l *line) closeStream(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cancel := l.open[id]; cancel != nil {
		cancel()
		delete(l.open, id)
	}
}

type (
	relayStream = connect.BidiStreamForClient[warrenv1.RelayRequest, warrenv1.RelayResponse]
	server      = func(context.Context, *warrenv1.OpenStream, *relayStream) error
)

// relay dials back, serves the stream, and tells the manager if it cannot be served.
func (l *line) relay(ctx context.Context, manager string, open *warrenv1.OpenStream, serve server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wire := newWire(manager, l.TLS())
	defer context.AfterFunc(ctx, wire.cut)()
	defer wire.cut()
	stream := wire.client.Relay(ctx)
	err := stream.Send(&warrenv1.RelayRequest{StreamId: open.GetStreamId()})
	if errors.Is(err, io.EOF) {
		_, err = stream.Receive() // tells why the stream has ended
	}
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel() // the manager has ended it: nobody reads on
		for {
			if _, err := stream.Receive(); err != nil {
				return
			}
		}
	}()
	err = serve(ctx, open, stream)
	if err != nil && ctx.Err() == nil {
		_ = stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Error{Error: err.Error()}})
	}
	_ = stream.CloseRequest()
	patience := time.AfterFunc(endTimeout, cancel)
	defer patience.Stop()
	<-ended
	return err
}

// serve sends what the stream is for.
func (l *line) serve(ctx context.Context, open *warrenv1.OpenStream, stream *relayStream) error {
	switch purpose := open.GetPurpose().(type) {
	case *warrenv1.OpenStream_Logs:
		return l.Logs.Read(ctx, purpose.Logs.GetTaskId(), purpose.Logs.GetSelection(),
			func(lines []*warrenv1.LogLine, caughtUp bool) error {
				return stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Logs{
					Logs: &warrenv1.LogBatch{Lines: lines, CaughtUp: caughtUp},
				}})
			})
	case *warrenv1.OpenStream_Peers:
		peers, err := l.Network.Peers(ctx)
		if err != nil {
			return err
		}
		return stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Peers{Peers: &warrenv1.PeerList{Peers: peers}}})
	case *warrenv1.OpenStream_Ping:
		pings, err := l.Network.Ping(ctx, purpose.Ping.GetAddresses(), purpose.Ping.GetCount())
		if err != nil {
			return err
		}
		return stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Pings{Pings: &warrenv1.PingList{Pings: pings}}})
	case *warrenv1.OpenStream_Usage:
		return l.Inside.Watch(ctx, purpose.Usage.GetInterval().AsDuration(), purpose.Usage.GetServiceId(), func(u *warrenv1.NodeUsage) error {
			return stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Usage{Usage: u}})
		})
	case *warrenv1.OpenStream_Disk:
		disk, err := l.Inside.Disk(ctx)
		if err != nil {
			return err
		}
		return stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Disk{Disk: disk}})
	case *warrenv1.OpenStream_Prune:
		pruned, err := l.Inside.Prune(ctx, purpose.Prune.GetDryRun())
		if pruned != nil {
			err = errors.Join(stream.Send(&warrenv1.RelayRequest{Data: &warrenv1.RelayRequest_Pruned{Pruned: pruned}}), err)
		}
		return err
	default:
		return fmt.Errorf("this agent does not know streams of the kind %T: upgrade it", purpose)
	}
}

// refuse serves a stream with an error.
func refuse(reason string) server {
	return func(context.Context, *warrenv1.OpenStream, *relayStream) error { return errors.New(reason) }
}
