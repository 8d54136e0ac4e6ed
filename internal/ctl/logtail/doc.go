// Package logtail prints what tasks write.
//
// It owns the look of a line (task, time, colour), the joining of lines that came in pieces, the split
// of standard output and error onto warrenctl's own, and the resuming of a followed stream that broke:
// it asks again from the last line seen of each task and drops what was already printed, so that
// nothing is printed twice and nothing is left out. It does not choose what to print.
//
// Start reading at Run; Resumer holds the rule of resuming.
package logtail
