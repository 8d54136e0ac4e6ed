// Package guest runs inside the machine that test/kernel boots: it starts Warren's daemons as services
// of that machine and tells the scripts' stories with them. Anywhere else it does nothing.
//
// The scripts are those of testscript, as in test/e2e, but of one machine, on which they run
// themselves; the commands that this package adds are described at [commands]. The cluster is the same
// for all of them, so each ends with "clean".
package guest
