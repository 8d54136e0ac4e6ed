// Package rotation is the control loop that ends the replacement of the cluster's CA: once every member
// has a certificate of the new CA the old one is forgotten, and what it has issued is worth nothing.
//
// Start with decide. authority.Rotate begins a replacement: both CAs are trusted, the new one issues, and
// members renew when they learn of it. All of it is state, so that a replacement whose leader is lost
// is ended by the next one. A node that is down holds it up until it is back or removed: it could not come
// back any more otherwise. How far it is, authority.Trust tells.
package rotation
