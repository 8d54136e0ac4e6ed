// Package initproc is the init program of containers that ask for one: it starts the container's own
// program, passes signals on to it, reaps orphans, and ends with its exit code.
//
// The agent mounts its own binary into such a container at Path and runs it there, so that no
// other program need be installed on the node and the image needs nothing either. The agent's main must
// therefore ask Invoked before it does anything else, and if so exit with what Run returns.
//
// The package imports the standard library alone.
package initproc
