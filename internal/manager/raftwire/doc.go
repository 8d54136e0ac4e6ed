// Package raftwire carries raft's messages between the managers of a cluster, over TLS on the port that
// the managers' API has: a connection is raft's when both sides agree so as they shake hands (ALPN).
//
// Start with Wire, which is a raft.Transport. Its Serve takes the connections that come in, from the
// server that listens; it dials the others itself. Both sides show a manager's certificate of the
// cluster, and whoever dials makes sure that the manager that answers is the one that it means, which
// an address alone does not say. Whom the cluster has removed is cut off (Recheck), and nobody stays
// connected for longer than the certificate lasts that was shown.
//
// The package knows nothing of what the messages mean.
package raftwire
