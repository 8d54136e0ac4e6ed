package client

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// NoAnswerError is the error of a call that no manager answered. It certainly was not carried out, or changes
// nothing. It wraps no error: what one manager's was does not tell what all amount to.
type NoAnswerError struct {
	// Since is when there was no answer any more.
	Since time.Time
	// Tries are the last of each manager.
	Tries []Try
}

// Try is what came of asking one manager.
type Try struct {
	Addr string
	// Err says why there was no answer, or holds the words of its refusal.
	Err error
	// Reached tells that there was a connection, Refused that it has answered.
	Reached, Refused bool
	// leaderless tells that waiting will not mend the refusal.
	leaderless bool
}

// Error implements error.
func (n *NoAnswerError) Error() string {
	said := make([]string, 0, len(n.Tries))
	for _, t := range n.Tries {
		said = append(said, fmt.Sprintf("%s: %v", t.Addr, t.Err))
	}
	return "no manager could answer: " + strings.Join(said, "; ")
}

func (n *NoAnswerError) reached() bool { return anyReached(n.Tries) }

func anyReached(tries []Try) bool {
	return slices.ContainsFunc(tries, func(t Try) bool { return t.Reached })
}

// hopeless tells whether all who could be reached say that waiting will not mend it.
func hopeless(tries []Try) bool {
	return anyReached(tries) && !slices.ContainsFunc(tries, func(t Try) bool { return t.Reached && !t.leaderless })
}

// UncertainError is the error of a call that changes something, and whose manager was lost before it answered: it
// may have been carried out.
type UncertainError struct{ Err error }

// Error implements error.
func (u *UncertainError) Error() string {
	return "the manager was lost before it answered: " + u.Err.Error()
}
