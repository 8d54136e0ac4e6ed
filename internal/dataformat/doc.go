// Package dataformat keeps a program from touching data that a newer one has written and that it would misread. What is
// in a daemon's data folder is of a format, a number, which a file in the folder tells (Check, Record). A
// program reads all formats up to the one it knows.
//
// An agent's data are its own, and of its format from its start on. A cluster's state is written by all its managers: it
// goes over to a format when each of them knows it, which package internal/manager/format decides. Until then every manager
// writes what the oldest of them reads, so that they can be upgraded, and downgraded, one after the other.
//
// A format gets a new number when a release writes what the release before would not read or would apply otherwise: another
// table, another operation, another rule of what is refused. New fields of what there is need none; they are kept by those who do not know them.
package dataformat
