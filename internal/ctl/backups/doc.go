// Package backups writes and reads the files that users keep backups in: written beside and put in place
// when they are whole, and encrypted with a passphrase where that is asked for (age, so that its own tool
// opens them as well). The passphrase never leaves warrenctl.
//
// Start with Create and Open. What is in a backup is for package backupfile.
package backups
