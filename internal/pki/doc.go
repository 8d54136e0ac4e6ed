// Package pki holds what members of a cluster prove themselves by: keys, certificates, who a certificate
// is for, and the TLS configurations made of them.
//
// Start with Credentials, a member's key and certificate with the CAs it trusts; a Holder keeps them for
// connections and is given new ones while these are open. CA issues. Nothing here touches the network or
// the replicated state.
package pki
