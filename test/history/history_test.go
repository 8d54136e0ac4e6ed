package history

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// told is an operation that was over before the next one began.
type told struct {
	q Request
	r Reply
}

var (
	one, two = Value{1, 1}, Value{2, 2}
	create   = Request{Kind: Create, Name: "web", Want: one}
	update   = Request{Kind: Update, Name: "web", Read: one, Want: two}
	scale    = Request{Kind: Scale, Name: "web", Want: Value{Replicas: 9}}
	remove   = Request{Kind: Delete, Name: "web"}
	get      = Request{Kind: Get, Name: "web"}
	other    = Request{Kind: Create, Name: "db", Want: one}
)

func sees(v Value) Reply { return Reply{Seen: v} }

func is(v Verdict) Reply { return Reply{Verdict: v} }

func TestAHistoryIsExplainedOrNot(t *testing.T) {
	for _, c := range []struct {
		name      string
		history   []told
		explained bool
	}{
		{"what was written is read", []told{{create, is(Done)}, {get, sees(one)}, {update, is(Done)}, {get, sees(two)}, {scale, is(Done)}, {get, sees(Value{2, 9})}}, true},
		{"a write is lost", []told{{create, is(Done)}, {get, is(Missing)}}, false},
		{"a change is lost", []told{{create, is(Done)}, {update, is(Done)}, {get, sees(one)}}, false},
		{"a change is seen, and then not", []told{{create, is(Done)}, {update, is(Unknown)}, {get, sees(two)}, {get, sees(one)}}, false},
		{"a scale is lost", []told{{create, is(Done)}, {scale, is(Done)}, {get, sees(one)}}, false},
		{"two create the same", []told{{create, is(Done)}, {create, is(Done)}}, false},
		{"the second is told", []told{{create, is(Done)}, {create, is(Taken)}, {other, is(Done)}}, true},
		{"two change the same version", []told{{create, is(Done)}, {update, is(Done)}, {update, is(Done)}}, false},
		{"the second of them is told", []told{{create, is(Done)}, {update, is(Done)}, {update, is(Changed)}}, true},
		{"an unknown write comes late", []told{{create, is(Unknown)}, {get, is(Missing)}, {get, sees(one)}}, true},
		{"an unknown write never comes", []told{{create, is(Unknown)}, {get, is(Missing)}}, true},
		{"an unknown write comes twice", []told{{create, is(Unknown)}, {get, sees(one)}, {remove, is(Done)}, {get, is(Missing)}, {get, sees(one)}}, false},
		{"nobody has written it", []told{{get, sees(one)}}, false},
		{"what is removed is there for a while", []told{{create, is(Done)}, {remove, is(Done)}, {get, Reply{Seen: one, Removing: true}}, {create, is(Removing)}, {get, is(Missing)}}, true},
		{"a removal is lost", []told{{create, is(Done)}, {remove, is(Done)}, {get, sees(one)}}, false},
		{"a removal is undone", []told{{create, is(Done)}, {remove, is(Done)}, {get, is(Missing)}, {scale, is(Done)}}, false},
	} {
		h := &History{}
		for i, o := range c.history {
			h.End(i, o.q, h.Begin(), o.r)
		}
		err := h.Check()
		if (err == nil) != c.explained {
			t.Errorf("%s: the verdict is %v", c.name, err)
		}
		unexplained := new(UnexplainedError)
		if err == nil || !errors.As(err, &unexplained) {
			continue
		}
		if !strings.Contains(err.Error(), c.history[len(c.history)-1].q.String()) {
			t.Errorf("%s: the error does not tell what was asked for: %v", c.name, err)
		}
		path, err := unexplained.Draw()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		_ = os.Remove(path)
	}
}

func TestOfTwoWritesAtOnceEitherMayBeFirst(t *testing.T) {
	for _, last := range []Reply{sees(one), is(Missing)} {
		h := &History{}
		first, second := h.Begin(), h.Begin()
		h.End(0, remove, first, is(Missing))
		h.End(1, create, second, is(Done))
		h.End(2, get, h.Begin(), last)
		if err := h.Check(); (err == nil) != (last == sees(one)) {
			t.Errorf("the last read %v: %v", last, err)
		}
	}
}

// forgetful is a manager that loses writes, or answers as one does that is cut off.
type forgetful struct {
	warrenv1connect.ServiceServiceClient
	answers []error // of creates, one after the other
	created int
}

func (f *forgetful) CreateService(_ context.Context, req *connect.Request[warrenv1.CreateServiceRequest]) (*connect.Response[warrenv1.CreateServiceResponse], error) {
	f.created++
	if f.created <= len(f.answers) {
		return nil, f.answers[f.created-1]
	}
	return connect.NewResponse(&warrenv1.CreateServiceResponse{Service: &warrenv1.Service{Spec: req.Msg.GetSpec()}}), nil
}

func (f *forgetful) GetService(context.Context, *connect.Request[warrenv1.GetServiceRequest]) (*connect.Response[warrenv1.GetServiceResponse], error) {
	return nil, connect.NewWireError(connect.CodeNotFound, errors.New("no such service"))
}

func (f *forgetful) user(h *History) *User {
	return &User{
		History: h, Random: rand.New(rand.NewPCG(1, 1)), Value: func() Value { return one },
		Manager: func(*rand.Rand) (warrenv1connect.ServiceServiceClient, context.Context) {
			return f, context.Background()
		},
	}
}

func TestAManagerThatLosesAWriteIsFoundOut(t *testing.T) {
	h := &History{}
	u := new(forgetful).user(h)
	if v := u.Create("web"); v != Done {
		t.Fatalf("the create ended with %v", v)
	}
	u.Get("web")
	if err := h.Check(); !errors.As(err, new(*UnexplainedError)) {
		t.Errorf("the verdict is %v", err)
	}
}

func TestAWriteIsAskedForAgainOnlyWhereNothingCameOfIt(t *testing.T) {
	nothingDone := connect.NewWireError(connect.CodeUnavailable, errors.New("no leader"))
	nothingDone.Meta().Set("Warren-Not-Executed", "true")
	refused := connect.NewError(connect.CodeUnavailable, &net.OpError{Op: "dial", Err: errors.New("connection refused")})
	for _, c := range []struct {
		name    string
		answers []error
		created int
		verdict Verdict
	}{
		{"said so", []error{nothingDone, nothingDone}, 3, Done},
		{"not reached", []error{refused}, 2, Done},
		{"not known", []error{connect.NewWireError(connect.CodeUnavailable, errors.New("it went away"))}, 1, Unknown},
		{"no answer", []error{connect.NewError(connect.CodeUnavailable, errors.New("unexpected EOF"))}, 1, Unknown},
		{"not known after all", []error{nothingDone, connect.NewError(connect.CodeCanceled, context.Canceled)}, 2, Unknown},
	} {
		h, f := &History{}, &forgetful{answers: c.answers}
		if v := f.user(h).Create("web"); v != c.verdict || f.created != c.created {
			t.Errorf("%s: %v after %d calls, want %v after %d", c.name, v, f.created, c.verdict, c.created)
		}
		if err := h.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAnAnswerThatNoFaultExcusesFailsTheHistory(t *testing.T) {
	h := &History{}
	f := &forgetful{answers: []error{connect.NewWireError(connect.CodePermissionDenied, errors.New("who are you"))}}
	f.user(h).Create("web")
	if err := h.Check(); err == nil || !strings.Contains(err.Error(), "who are you") {
		t.Errorf("the verdict is %v", err)
	}
}
