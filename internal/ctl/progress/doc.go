// Package progress shows services on their way to what was ordered, and tells when they are there.
//
// It owns the watch of each service (taken up again when the connection breaks), the decision when a
// service has arrived, got stuck or run out of time, and the picture: a bar per service redrawn in
// place on a terminal, a line per change elsewhere. It orders nothing itself, and ending it, also by
// Ctrl-C, ends nothing but the picture.
//
// Start reading at Follow, the loop; Tracker holds every decision and reads no clock.
package progress
