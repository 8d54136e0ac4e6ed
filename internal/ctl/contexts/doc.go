// Package contexts keeps what warrenctl needs to reach clusters from elsewhere than a manager's own machine:
// for each a file with the user's key and certificate, the cluster's CA and the managers' addresses.
//
// Start with Context, what one file holds, and Store, the folder in which they lie and the note which of
// them is in use. A file is whoever it is for, so that only its owner may read it. Files are replaced
// whole; a command that is killed leaves the old one. Keeper renews a context's certificate while commands
// use it. Which context a command uses is for package command to say.
package contexts
