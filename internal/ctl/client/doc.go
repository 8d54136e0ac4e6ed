// Package client is warrenctl's connection to a manager: where it is, how it is spoken to, and the
// API's services ready to call.
//
// It owns the transport (HTTP/2 without TLS, over the manager's unix socket or to an address), the
// refusal to send plain text to a machine other than this one, the time limit of single calls, and
// the walk through the pages of a list. It never words an error for people (package failure does) and
// never prints. Nothing is dialled before the first call.
//
// Start reading at New.
package client
