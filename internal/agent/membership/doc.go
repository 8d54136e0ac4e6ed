// Package membership is what makes this machine a member of a cluster: the key that is made here and never
// leaves, the certificate that a manager gives for it, the CAs to believe, and where the managers are.
//
// Start with Membership. Join (join.go) shows a manager a join token and comes back with a certificate;
// Keep (keep.go) renews it in time and follows the CA when that is replaced; Forget ends it. The node's id is
// the certificate's name, which follows from the key: who joins anew is a new node.
//
// It owns the file of credentials. It runs no task and holds no session.
package membership
