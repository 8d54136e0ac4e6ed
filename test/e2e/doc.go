// Package e2e tells stories of Warren with the real programs on real machines: every script under
// scripts/ gets machines of its own, starts a cluster, does what a user or fate would do, and sees
// what a user would see. After each, nothing of Warren's containers may be left on any machine.
//
// The scripts are those of testscript (github.com/rogpeppe/go-internal); the commands that this
// package adds to it are described at [commands]. "make e2e RUN=regexp" runs some, "make test" all.
package e2e
