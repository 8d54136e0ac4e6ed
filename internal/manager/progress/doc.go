// Package progress tells how far a service is from what its spec wants: how many tasks are wanted,
// run and are of the current revision, and if it has not converged, the latest reason why. A service
// has converged only when its tasks serve as well.
//
// Start with Of. It is a pure function of a snapshot: it keeps nothing, so two callers never
// disagree, and it decides nothing: which tasks there should be is the control loops' matter.
package progress
