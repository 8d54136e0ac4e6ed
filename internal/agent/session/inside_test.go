package session

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// fakeInside tells of a node without looking at any.
type fakeInside struct{}

func (fakeInside) Watch(ctx context.Context, interval time.Duration, service string, emit func(*warrenv1.NodeUsage) error) error {
	for n := range 2 {
		if err := emit(&warrenv1.NodeUsage{NanoCpus: int64(interval) + int64(n), Tasks: []*warrenv1.TaskUsage{{ServiceId: service}}}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (fakeInside) Disk(context.Context) (*warrenv1.NodeDisk, error) {
	return &warrenv1.NodeDisk{TotalBytes: 7}, nil
}

func (fakeInside) Prune(_ context.Context, dryRun bool) (*warrenv1.PrunedImages, error) {
	if dryRun {
		return nil, errors.New("containerd is away")
	}
	return &warrenv1.PrunedImages{FreedBytes: 5}, errors.New("not all of it")
}

func TestWhatGoesOnInsideIsToldOnDemand(t *testing.T) {
	a := newFakeAgent(t)
	m := a.manager(t, &fakeManager{interval: time.Hour})
	attend(t, a, m.addr)
	s := next(t, m.sessions, "session")
	streams := 0
	ask := func(o *warrenv1.OpenStream) *managerRelay {
		t.Helper()
		streams++
		o.StreamId = strconv.Itoa(streams)
		if err := s.send(&warrenv1.AttendResponse{Message: &warrenv1.AttendResponse_OpenStream{OpenStream: o}}); err != nil {
			t.Fatal(err)
		}
		r := next(t, m.relays, "relay")
		next(t, r.heard, "first message")
		return r
	}

	r := ask(&warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Usage{Usage: &warrenv1.UsagePurpose{Interval: durationpb.New(time.Second), ServiceId: "web"}}})
	for n := range int64(2) {
		if u := next(t, r.heard, "usage").GetUsage(); u.GetNanoCpus() != int64(time.Second)+n || u.GetTasks()[0].GetServiceId() != "web" {
			t.Errorf("told %v", u)
		}
	}
	closeStream(s, "1")
	untilClosed(t, r.heard, "the relay")

	r = ask(&warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Disk{Disk: &warrenv1.DiskPurpose{}}})
	if d := next(t, r.heard, "disk").GetDisk(); d.GetTotalBytes() != 7 {
		t.Errorf("told %v", d)
	}
	untilClosed(t, r.heard, "the relay")

	r = ask(&warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Prune{Prune: &warrenv1.PrunePurpose{}}})
	if p := next(t, r.heard, "what was removed").GetPruned(); p.GetFreedBytes() != 5 {
		t.Errorf("told %v", p)
	}
	if e := next(t, r.heard, "why not all").GetError(); e != "not all of it" {
		t.Errorf("told %q", e)
	}
	untilClosed(t, r.heard, "the relay")

	r = ask(&warrenv1.OpenStream{Purpose: &warrenv1.OpenStream_Prune{Prune: &warrenv1.PrunePurpose{DryRun: true}}})
	if e := next(t, r.heard, "why not").GetError(); e != "containerd is away" {
		t.Errorf("told %q", e)
	}
	untilClosed(t, r.heard, "the relay")
}
