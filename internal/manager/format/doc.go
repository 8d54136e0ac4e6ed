// Package format is the control loop that has a cluster's state go over to a newer format once every manager knows it.
//
// Start with decide. What a format is and when it gets a new number, package internal/dataformat tells. The format
// is never lowered: a manager that does not know it is not let in (Manager.Enlist), and does not start on a
// folder with such data.
package format
