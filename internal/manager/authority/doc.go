// Package authority is the cluster's certificate authority: it makes join tokens, lets machines join that
// show one, and renews members' certificates.
//
// Start with Authority. What it knows is one object of the replicated state, so that any manager can go
// on; the key that issues is sealed there with the cluster's key, which each manager keeps in a file of its
// own (Key) and which never is in the state.
package authority
