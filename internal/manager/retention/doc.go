// Package retention is the control loop that forgets: ended tasks beyond the history that the cluster
// keeps of each slot, tasks that were to be removed and have ended, and revisions nobody needs.
//
// Start with decideSlot and decideRevisions. Each slot is looked at by itself when one of its tasks
// ends, so the cost of keeping history does not grow with it.
//
// The loop alone deletes tasks. It decides nothing about tasks that have not ended, except that a task
// which is not wanted and never was given to a node can be deleted on the spot.
package retention
