// Package keyring keeps the files of a manager's data folder that others must not read: cluster.key, the
// cluster's key, and identity.pem, the manager's certificate with its private key. Where the cluster has
// autolock they are sealed, and after a restart the manager can do nothing before it is given the unlock
// key.
//
// Start with Ring. The unlock key seals cluster.key, and the cluster's key seals the private key in
// identity.pem. So one file alone changes with the unlock key, and it is replaced as a whole: whenever the
// power fails, either the old key opens everything or the new one does. Follow has the files be as the
// replicated state wants them; the state itself, the raft log and snapshots, needs no seal, as what is
// secret in it is sealed with the cluster's key.
//
// The private key is in manager.key as long as there is no certificate, which is not the ring's matter; it
// removes that file when it has the certificate.
//
// What was on the disk before autolock was turned on is overwritten by the file system when it likes.
package keyring
