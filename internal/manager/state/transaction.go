package state

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// Why a transaction was refused. Refusals wrap one of these and name the object.
var (
	// ErrConflict: an object is not at the version the transaction expects. Look again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrExists: an object to be created exists, or its unique name is taken.
	ErrExists = errors.New("already exists")
	// ErrNotFound: an object to be changed does not exist (any more).
	ErrNotFound = errors.New("not found")
	// ErrMalformed: the transaction makes no sense in itself.
	ErrMalformed = errors.New("malformed transaction")
)

// Transaction collects operations that are to be applied together. Make one with New.
type Transaction struct {
	now     time.Time
	message statev1.Transaction
}

// New returns an empty transaction whose objects are stamped with the time now.
func New(now time.Time) *Transaction {
	return &Transaction{now: now, message: statev1.Transaction{At: timestamppb.New(now)}}
}

// Len returns the number of operations.
func (t *Transaction) Len() int { return len(t.message.GetOperations()) }

// Message returns the transaction as it is proposed.
func (t *Transaction) Message() *statev1.Transaction { return &t.message }

// By notes the user whose call the transaction carries out.
func (t *Transaction) By(user string) { t.message.By = user }

// Create adds o, whose meta needs nothing but an id. It takes possession of o.
func (t *Transaction) Create(o Object) {
	stamp := timestamppb.New(t.now)
	meta := o.GetMeta()
	meta.Version, meta.CreatedAt, meta.UpdatedAt = 0, stamp, stamp
	t.add(&statev1.Operation{Action: &statev1.Operation_Create{Create: wrap(o)}})
}

// Update adds an update of the stored object o: edit is given a copy of it to change. It is a
// function, not a method, so that edit has o's type.
func Update[T Object](t *Transaction, o T, edit func(T)) {
	changed := proto.Clone(o).(T)
	edit(changed)
	changed.GetMeta().UpdatedAt = timestamppb.New(t.now)
	t.add(&statev1.Operation{Action: &statev1.Operation_Update{Update: wrap(changed)}})
}

// Delete adds the removal of the stored object o.
func (t *Transaction) Delete(o Object) {
	t.add(&statev1.Operation{Action: &statev1.Operation_Delete{Delete: key(o)}})
}

// Check adds the condition that the stored object o has not changed.
func (t *Transaction) Check(o Object) {
	t.add(&statev1.Operation{Action: &statev1.Operation_Check{Check: key(o)}})
}

func (t *Transaction) add(op *statev1.Operation) {
	t.message.Operations = append(t.message.Operations, op)
}

func key(o Object) *statev1.Key {
	return &statev1.Key{Table: tableOf(o), Id: o.GetMeta().GetId(), Version: o.GetMeta().GetVersion()}
}

// refuse says why an operation on k cannot be applied.
func refuse(k Key, why error) error {
	return fmt.Errorf("%s %s: %w", tableNames[k.Table], k.ID, why)
}
