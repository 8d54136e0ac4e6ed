// Package backup makes backups of the cluster and gets them ready to be restored, so that a manager becomes
// the only one of the cluster that a backup holds.
//
// Start with Take and Receive. A backup holds one snapshot of the state and the cluster's key, in the format
// of package backupfile. What is restored is checked from end to end, changed to what must hold of a
// cluster with one manager, and loaded once for trial, before anything of the manager is touched. How raft
// takes it up is for package consensus.
package backup
