package history

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// Kind is what a user asks for.
type Kind int

// What users ask for.
const (
	Create Kind = iota
	Update
	Scale
	Delete
	Get
)

// Value is what a service is at a moment, in as much as users here care. No two writes to a service make
// the same of it, so that it stands for the version, too.
type Value struct{ Label, Replicas int }

// Request is what a user asks for.
type Request struct {
	Kind Kind
	Name string
	Read Value // what the version that an update names was read with
	Want Value // what a create or update makes of the service; a scale, its replicas
}

// Verdict is what a user is told.
type Verdict int

// What users are told.
const (
	Done Verdict = iota
	Taken
	Missing
	Removing
	Changed // since the version that an update names
	Unknown // the user was told that it may have been done or not, or nothing
)

// Reply is what a user is told.
type Reply struct {
	Verdict  Verdict
	Seen     Value // by a get
	Removing bool  // as a get saw it
}

// String says what was asked for.
func (q Request) String() string {
	switch q.Kind {
	case Create:
		return fmt.Sprintf("create %s as %v", q.Name, q.Want)
	case Update:
		return fmt.Sprintf("update %s from %v to %v", q.Name, q.Read, q.Want)
	case Scale:
		return fmt.Sprintf("scale %s to %d", q.Name, q.Want.Replicas)
	case Delete:
		return "delete " + q.Name
	}
	return "get " + q.Name
}

// String says what was told.
func (r Reply) String() string {
	said := []string{"done", "is taken", "is missing", "is being removed", "has changed", "may be done or not"}[r.Verdict]
	if r.Seen != (Value{}) {
		said = fmt.Sprintf("%v, being removed: %v", r.Seen, r.Removing)
	}
	return said
}

// service is the model of one service.
type service struct {
	Value
	there, removing bool
}

// step is what a manager that never fails would do. Services that are being removed are gone at some time
// after; it is taken to have come once something is seen that tells so.
func step(s service, q Request, r Reply) (bool, service) {
	gone := service{}
	if q.Kind == Get {
		if r.Verdict == Missing {
			return !s.there || s.removing, gone
		}
		return s.there && s.removing == r.Removing && s.Value == r.Seen, s
	}
	if r.Verdict == Unknown {
		// Nothing may have come of it: then it is as if it came after everything else.
		if q.Kind == Create && s.removing {
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
func answered(s service, q Request, r Reply) (bool, service) {
	after, said := apply(s, q)
	return said == r.Verdict, after
}

// apply carries out a write.
func apply(s service, q Request) (service, Verdict) {
	switch {
	case q.Kind == Create && !s.there:
		return service{Value: q.Want, there: true}, Done
	case q.Kind == Create && s.removing:
		return s, Removing
	case q.Kind == Create:
		return s, Taken
	case !s.there:
		return s, Missing
	case q.Kind == Delete:
		s.removing = true
		return s, Done
	case s.removing:
		return s, Removing
	case q.Kind == Scale:
		s.Replicas = q.Want.Replicas
		return s, Done
	case s.Value != q.Read:
		return s, Changed
	}
	s.Value = q.Want
	return s, Done
}

// model is the model as porcupine wants it, a service at a time.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := map[string][]porcupine.Operation{}
		for _, o := range history {
			name := o.Input.(Request).Name
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
		ok, after := step(state.(service), input.(Request), output.(Reply))
		return ok, after
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v: %v", input, output) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}
