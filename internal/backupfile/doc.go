// Package backupfile is the format of backups of a cluster: what the manager sends, warrenctl keeps and
// checks, and a manager is restored from.
//
//	"WRNBKUP\n"    8 bytes
//	format         4 bytes, big-endian: 1
//	BackupHeader   behind its length, a varint
//	state          as in a raft snapshot: a SnapshotHeader, then its objects, each behind its length
//	"WRNBKEND"     8 bytes, by whose absence a file that was cut short is known
//	checksum       32 bytes: SHA-256 of all before it
//
// Start with Write and Check. Nothing of a backup is to be used before Check has gone through all of it.
// What is in the state the package only counts. That a backup was encrypted with a passphrase it knows
// nothing of: that happens before a file is written and after it was read.
package backupfile
