// Package liveness is the control loop that gives nodes up: a node that has been silent for longer than
// its grace is down, and the tasks of a node that is down or gone are lost, or wait for it where their service says so.
//
// Start with decide. Who heartbeats is seen by the dispatcher, which writes a node's state as ready,
// unknown (fell silent) or disconnected (said goodbye) with the time since when; this loop waits out
// the grace and alone writes down. A node that comes back is the dispatcher's to call ready again.
//
// A lost task never runs again. It is wanted shut down from that moment, so that a node that was
// merely cut off stops it on its return. A task that waits (see nodeloss) stays as it is but for taking no connections: its
// node's agent carries on with it, and what that reports is the next that is known of it.
package liveness
