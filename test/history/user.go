package history

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/manager/forward"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	callTimeout = 8 * time.Second
	askAgain    = 10 * time.Millisecond
	thinkAtMost = 200 * time.Millisecond // between two requests of a user at work
)

// User is somebody who asks managers for things, one after the other.
type User struct {
	ID      int
	History *History
	Random  *rand.Rand
	// Manager draws a manager, and returns its API and what ends when it is known to have died; nil while
	// nobody listens there.
	Manager func(*rand.Rand) (warrenv1connect.ServiceServiceClient, context.Context)
	// Value returns what no other write to any service of that name has made of it.
	Value func() Value

	read map[string]*warrenv1.Service // as last read
}

// Work asks for things at random, of services whose names name draws, until stop is closed.
func (u *User) Work(stop <-chan struct{}, name func(*rand.Rand) string) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(u.Random.Int64N(int64(thinkAtMost)))):
		}
		name := name(u.Random)
		switch u.Random.IntN(12) {
		case 0, 1:
			u.Create(name)
		case 2, 3, 4:
			u.Update(name)
		case 5, 6:
			u.Scale(name)
		case 7:
			u.Delete(name)
		default:
			u.Get(name)
		}
	}
}

// Create asks for a new service.
func (u *User) Create(name string) Verdict {
	want := u.Value()
	r, v := ask(u, Request{Kind: Create, Name: name, Want: want}, func(ctx context.Context, m warrenv1connect.ServiceServiceClient) (*connect.Response[warrenv1.CreateServiceResponse], error) {
		return m.CreateService(ctx, connect.NewRequest(&warrenv1.CreateServiceRequest{Spec: spec(name, want)}))
	})
	if r != nil {
		u.keep(name, r.GetService())
	}
	return v
}

// Update asks for a change of the service as it was last read; it reads one that was not.
func (u *User) Update(name string) Verdict {
	read := u.read[name]
	if read == nil {
		return u.Get(name)
	}
	want := u.Value()
	_, v := ask(u, Request{Kind: Update, Name: name, Read: valueOf(read), Want: want}, func(ctx context.Context, m warrenv1connect.ServiceServiceClient) (*connect.Response[warrenv1.UpdateServiceResponse], error) {
		return m.UpdateService(ctx, connect.NewRequest(&warrenv1.UpdateServiceRequest{Ref: name, Version: read.GetMeta().GetVersion(), Spec: spec(name, want)}))
	})
	if v != Unknown {
		delete(u.read, name)
	}
	return v
}

// Scale asks for another number of replicas.
func (u *User) Scale(name string) Verdict {
	want := u.Value()
	_, v := ask(u, Request{Kind: Scale, Name: name, Want: want}, func(ctx context.Context, m warrenv1connect.ServiceServiceClient) (*connect.Response[warrenv1.ScaleServiceResponse], error) {
		return m.ScaleService(ctx, connect.NewRequest(&warrenv1.ScaleServiceRequest{Ref: name, Replicas: uint32(want.Replicas)}))
	})
	return v
}

// Delete asks to remove a service.
func (u *User) Delete(name string) Verdict {
	_, v := ask(u, Request{Kind: Delete, Name: name}, func(ctx context.Context, m warrenv1connect.ServiceServiceClient) (*connect.Response[warrenv1.DeleteServiceResponse], error) {
		return m.DeleteService(ctx, connect.NewRequest(&warrenv1.DeleteServiceRequest{Ref: name}))
	})
	return v
}

// Get reads a service.
func (u *User) Get(name string) Verdict {
	r, v := ask(u, Request{Kind: Get, Name: name}, func(ctx context.Context, m warrenv1connect.ServiceServiceClient) (*connect.Response[warrenv1.GetServiceResponse], error) {
		return m.GetService(ctx, connect.NewRequest(&warrenv1.GetServiceRequest{Ref: name}))
	})
	if r != nil {
		u.keep(name, r.GetEntry().GetService())
	}
	return v
}

func (u *User) keep(name string, s *warrenv1.Service) {
	if u.read == nil {
		u.read = map[string]*warrenv1.Service{}
	}
	u.read[name] = s
}

func spec(name string, v Value) *warrenv1.ServiceSpec {
	return &warrenv1.ServiceSpec{
		Name: name, Labels: map[string]string{"value": strconv.Itoa(v.Label)},
		Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: uint32(v.Replicas)}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "image"}},
	}
}

func valueOf(s *warrenv1.Service) Value {
	label, _ := strconv.Atoi(s.GetSpec().GetLabels()["value"])
	return Value{label, int(s.GetSpec().GetReplicated().GetReplicas())}
}

// ask asks one manager after the other until one gives an answer, and puts it into the history. Where a
// manager says that nothing came of it, that is believed; where it says that something may have, or
// says nothing, nobody else is asked for a write.
func ask[R any](u *User, q Request, call func(context.Context, warrenv1connect.ServiceServiceClient) (*connect.Response[R], error)) (*R, Verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	began := u.History.Begin()
	for ; ctx.Err() == nil; pause(ctx) {
		manager, alive := u.Manager(u.Random)
		if manager == nil {
			continue
		}
		within, release := merge(ctx, alive)
		res, err := call(within, manager)
		release()
		switch said, verdict := judge(header(res), err); said {
		case nothing:
			continue
		case lost:
			if q.Kind == Get {
				continue
			}
			u.History.End(u.ID, q, began, Reply{Verdict: Unknown})
			return nil, Unknown
		case nonsense:
			u.History.surprise(u.ID, q, err)
			return nil, Unknown
		case answer:
			r := Reply{Verdict: verdict}
			if err != nil {
				u.History.End(u.ID, q, began, r)
				return nil, verdict
			}
			if got, ok := any(res.Msg).(*warrenv1.GetServiceResponse); ok {
				r.Seen, r.Removing = valueOf(got.GetEntry().GetService()), got.GetEntry().GetService().GetRemoving()
			}
			u.History.End(u.ID, q, began, r)
			return res.Msg, verdict
		}
	}
	return nil, Unknown // nothing came of it
}

// merge returns a context that ends with either.
func merge(ctx, other context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(other, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

func pause(ctx context.Context) {
	select {
	case <-time.After(askAgain):
	case <-ctx.Done():
	}
}

func header[R any](res *connect.Response[R]) http.Header {
	if res == nil {
		return nil
	}
	return res.Header()
}

// said is what there is to an answer.
type said int

const (
	answer   said = iota
	nothing       // was done, or only an old state shown
	lost          // is what became of it
	nonsense      // that no fault excuses
)

// judge tells what an answer means.
func judge(header http.Header, err error) (said, Verdict) {
	if err == nil {
		return current(header), Done
	}
	told := new(connect.Error)
	if !errors.As(err, &told) {
		return nonsense, Unknown
	}
	if !connect.IsWireError(err) { // no manager says so
		if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" {
			return nothing, Unknown
		}
		return lost, Unknown
	}
	if told.Meta().Get(forward.UnexecutedHeader) != "" {
		return nothing, Unknown
	}
	switch told.Code() {
	case connect.CodeAlreadyExists:
		return answer, Taken
	case connect.CodeNotFound:
		return current(told.Meta()), Missing
	case connect.CodeFailedPrecondition:
		return answer, Removing
	case connect.CodeAborted:
		return answer, Changed
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded:
		return lost, Unknown
	}
	return nonsense, Unknown
}

// current tells whether an answer is of the state as it is, and not of one that is marked as stale.
func current(header http.Header) said {
	if header.Get(forward.StaleHeader) != "" {
		return nothing
	}
	return answer
}
