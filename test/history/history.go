package history

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkAtMost bounds the search for an explanation; it takes moments where there is one.
const checkAtMost = time.Minute

// History is what users asked for and were told, in order.
type History struct {
	mu         sync.Mutex
	clock      int64
	operations []porcupine.Operation
	unknown    int
	surprises  []error
}

// Begin returns the moment at which somebody asks.
func (h *History) Begin() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// End adds what was asked at a moment and is answered now. What is not known to have been done may be
// done at any time from then on.
func (h *History) End(user int, q Request, began int64, r Reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	operation := porcupine.Operation{ClientId: user, Input: q, Call: began, Output: r, Return: h.clock}
	if r.Verdict == Unknown {
		h.unknown++
		operation.Return = 1 << 62
	}
	h.operations = append(h.operations, operation)
}

// surprise notes an answer that no fault excuses.
func (h *History) surprise(user int, q Request, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.surprises = append(h.surprises, fmt.Errorf("user %d, %v: %w", user, q, err))
}

// Count returns how many operations there are, and of how many nobody knows what became.
func (h *History) Count() (operations, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.operations), h.unknown
}

// Check tells why the history is not that of one manager that never fails: an [UnexplainedError] where no
// order explains what users were told.
func (h *History) Check() error {
	if err := errors.Join(h.surprises...); err != nil {
		return err
	}
	result, info := porcupine.CheckOperationsVerbose(model, h.operations, checkAtMost)
	switch result {
	case porcupine.Illegal:
		return &UnexplainedError{operations: len(h.operations), parts: h.unexplained(), info: info}
	case porcupine.Unknown:
		return fmt.Errorf("%d operations could not be checked within %v", len(h.operations), checkAtMost)
	}
	return nil
}

// unexplained returns what was asked for and told about each service of which nothing explains it.
func (h *History) unexplained() (parts [][]porcupine.Operation) {
	for _, part := range model.Partition(h.operations) {
		if porcupine.CheckOperationsTimeout(model, part, checkAtMost) != porcupine.Ok {
			parts = append(parts, part)
		}
	}
	return parts
}

// UnexplainedError says that no order of what was asked for explains what users were told.
type UnexplainedError struct {
	operations int
	parts      [][]porcupine.Operation
	info       porcupine.LinearizationInfo
}

// Error implements error: it has all of what was asked for and told about the services in question.
func (e *UnexplainedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no order of %d operations explains what users were told", e.operations)
	for _, part := range e.parts {
		for _, o := range part {
			fmt.Fprintf(&b, "\nuser %d from %d to %d: %v: %v", o.ClientId, o.Call, o.Return, o.Input, o.Output)
		}
	}
	return b.String()
}

// Draw keeps a picture of the history, and returns where.
func (e *UnexplainedError) Draw() (path string, err error) {
	f, err := os.CreateTemp("", "warren-history-*.html")
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(porcupine.Visualize(model, e.info, f), f.Close())
}
