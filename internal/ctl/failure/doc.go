// Package failure decides what a failed command says and with which code the program ends.
//
// It owns the exit codes, the mark of an error as the user's own mistake, and the translation of what
// the transport and the API return into sentences that name the thing and the remedy: a manager that
// cannot be reached, a field the manager refused (named by the flag it came from), a call that was
// interrupted. It never prints and never decides whether to try again.
//
// Start reading at Describe and ExitCode.
package failure
