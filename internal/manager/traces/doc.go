// Package traces is what a manager tells of traces. It is around the API's calls, around what the API and the control loops
// write, and around calls that are passed on to the leader; it follows the feed for the ways of tasks, whose steps it takes
// from the times that the objects hold: no decision knows of traces.
//
// What a call writes says of which trace it is, and so do the tasks that follow from it, so that what happens later, on
// whichever machine, becomes part of the same trace. Nothing of this exists in a manager that sends no spans. Begin at Traces.
package traces
