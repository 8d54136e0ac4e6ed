// Package client is warrenctl's connection to the cluster: where its managers are, how they are spoken to,
// and the API's services ready to call.
//
// It owns the transport (HTTP/2, in plain text over the unix socket of the manager on this machine, over TLS
// with the user's certificate to managers elsewhere), the change to another manager when one is lost, the
// time limit of single calls, and the walk through the pages of a list. It never words an error for people
// (package failure does) and never prints. Nothing is dialled before the first call.
//
// Start reading at New; failover holds which manager is asked, and what may be asked twice. Resumption is
// for whoever follows a stream across the loss of a manager.
package client
