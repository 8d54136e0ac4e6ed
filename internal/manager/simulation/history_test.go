package simulation

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// kind is what a user asks for.
type kind int

const (
	createService kind = iota
	updateService
	scaleService
	deleteService
	getService
)

// value is what a service is at a moment, in as much as users here care. No two writes make the same of
// it, so that it stands for the version, too.
type value struct{ label, replicas int }

// request is what a user asks for.
type request struct {
	kind kind
	name string
	read value // what the version that an update names was read with
	want value // what a create or update makes of the service; a scale, its replicas
}

// verdict is what a user is told.
type verdict int

const (
	done verdict = iota
	taken
	missing
	removing
	changed // since the version that an update names
	unknown // the user was told that it may have been done or not, or nothing
)

// reply is what a user is told.
type reply struct {
	verdict  verdict
	seen     value // by a get
	removing bool  // as a get saw it
}

// String says what was asked for.
func (q request) String() string {
	switch q.kind {
	case createService:
		return fmt.Sprintf("create %s as %v", q.name, q.want)
	case updateService:
		return fmt.Sprintf("update %s from %v to %v", q.name, q.read, q.want)
	case scaleService:
		return fmt.Sprintf("scale %s to %d", q.name, q.want.replicas)
	case deleteService:
		return "delete " + q.name
	}
	return "get " + q.name
}

// String says what was told.
func (r reply) String() string {
	said := []string{"done", "is taken", "is missing", "is being removed", "has changed", "may be done or not"}[r.verdict]
	if r.seen != (value{}) {
		said = fmt.Sprintf("%v, being removed: %v", r.seen, r.removing)
	}
	return said
}

// service is the model of one service.
type service struct {
	value
	there, removing bool
}

// step is what a manager that never fails would do. Services that are being removed are gone at some time
// after; it is taken to have come once something is seen that tells so.
func step(s service, q request, r reply) (bool, service) {
	gone := service{}
	if q.kind == getService {
		if r.verdict == missing {
			return !s.there || s.removing, gone
		}
		return s.there && s.removing == r.removing && s.value == r.seen, s
	}
	if r.verdict == unknown {
		// Nothing may have come of it: then it is as if it came after everything else.
		if q.kind == createService && s.removing {
			s = gone
		}
		after, _ := apply(s, q)
		return true, after
	}
	if s.removing {
		if ok, after := answered(gone, q, r); ok {
			return true, after
		}
	}
	return answered(s, q, r)
}

// answered tells whether the reply is that of a service in that state, and what becomes of it.
func answered(s service, q request, r reply) (bool, service) {
	after, said := apply(s, q)
	return said == r.verdict, after
}

// apply carries out a write.
func apply(s service, q request) (service, verdict) {
	switch {
	case q.kind == createService && !s.there:
		return service{value: q.want, there: true}, done
	case q.kind == createService && s.removing:
		return s, removing
	case q.kind == createService:
		return s, taken
	case !s.there:
		return s, missing
	case q.kind == deleteService:
		s.removing = true
		return s, done
	case s.removing:
		return s, removing
	case q.kind == scaleService:
		s.replicas = q.want.replicas
		return s, done
	case s.value != q.read:
		return s, changed
	}
	s.value = q.want
	return s, done
}

// model is the model as porcupine wants it, a service at a time.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := map[string][]porcupine.Operation{}
		for _, o := range history {
			name := o.Input.(request).name
			byName[name] = append(byName[name], o)
		}
		var all [][]porcupine.Operation
		for _, some := range byName {
			all = append(all, some)
		}
		return all
	},
	Init: func() any { return service{} },
	Step: func(state, input, output any) (bool, any) {
		ok, after := step(state.(service), input.(request), output.(reply))
		return ok, after
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v: %v", input, output) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}

// history is what users asked for and were told, in order.
type history struct {
	mu         sync.Mutex
	clock      int64
	operations []porcupine.Operation
	unknown    int
}

// begin returns the moment at which somebody asks.
func (h *history) begin() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// end adds what was asked at a moment and is answered now. What is not known to have been done may be
// done at any time from then on.
func (h *history) end(client int, q request, began int64, r reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	operation := porcupine.Operation{ClientId: client, Input: q, Call: began, Output: r, Return: h.clock}
	if r.verdict == unknown {
		h.unknown++
		operation.Return = 1 << 62
	}
	h.operations = append(h.operations, operation)
}

// check tells why the history is not that of one manager that never fails.
func (h *history) check() (porcupine.LinearizationInfo, error) {
	result, info := porcupine.CheckOperationsVerbose(model, h.operations, time.Minute)
	switch result {
	case porcupine.Illegal:
		return info, fmt.Errorf("no order of %d operations explains what users were told", len(h.operations))
	case porcupine.Unknown:
		return info, fmt.Errorf("%d operations could not be checked within a minute", len(h.operations))
	}
	return info, nil
}

// tell writes what was asked for and told about each service of which nothing explains it.
func (h *history) tell(t *testing.T) {
	for _, part := range model.Partition(h.operations) {
		if porcupine.CheckOperationsTimeout(model, part, time.Minute) == porcupine.Ok {
			continue
		}
		for _, o := range part {
			t.Logf("user %d from %d to %d: %v: %v", o.ClientId, o.Call, o.Return, o.Input, o.Output)
		}
	}
}
