// Package guest runs inside the machine that test/kernel boots: it installs Warren's packages, as a user would, makes a
// cluster of that machine and tells the scripts' stories with the daemons under their own units. Anywhere else it does nothing.
//
// The scripts are those of testscript, as in test/e2e, but of one machine, on which they run
// themselves; the commands that this package adds are described at [commands]. The cluster is the same
// for all in scripts, so each of them ends with "clean". The one in purge comes after them and takes Warren away.
package guest
