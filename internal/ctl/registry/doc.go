// Package registry asks image registries what a tag stands for, so that all tasks of a revision run the same image.
//
// It asks once, for a few seconds at most, with the credentials that `docker login` has left for the user; where
// nothing answers that is an error for its caller to tell, never to fail on: a node can pull the tag by itself. It
// speaks plain HTTP only to registries on this machine and in private networks, as Docker's clients do.
//
// Start reading at Resolve.
package registry
