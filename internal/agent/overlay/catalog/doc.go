// Package catalog is what a node knows of the cluster's services and tasks: how each is reached, and which tasks take
// connections.
//
// Start with Catalog. It takes what managers send (Heed) and what this node sees of its own tasks before anybody else does
// (Place, Serve, Withdraw, Release), and gives it on in two forms: as what the packet rules are to know (rules.go), all of it or what has
// changed since it was last asked; and as the directory that names are answered from (names.go). shares.go says which tasks
// of a service new connections go to, and in what proportion.
//
// It has no effects and waits for nothing.
package catalog
