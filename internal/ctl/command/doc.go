// Package command holds warrenctl's commands: one struct each, whose fields are its flags and
// arguments and whose Run does it.
//
// A command turns flags into calls and results into output; whatever takes thought lives in a package
// of its own (specflags, progress, logtail, view, output). Commands return errors and never end the
// program; results go to standard output, all else to standard error. Where a command takes several
// names it goes through all of them, and fails at the end if one failed.
//
// One file per noun. Start reading at session.go, then service.go.
package command
