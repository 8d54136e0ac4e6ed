// Package fdstore gives open files to systemd to hold, under a name each, so that they stay open
// while this process is not there: sd_notify(3) calls it the file descriptor store.
//
// Inherit begins with what systemd gave back of an earlier process's; Take hands that out, Keep and
// Drop say what is to be held from now on. Where there is no systemd, or its unit for this process has no
// FileDescriptorStoreMax=, everything works and nothing is held.
//
// The package knows nothing of what the files are.
package fdstore
