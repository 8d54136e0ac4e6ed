// Package ocispec turns a task's template and its image's configuration into the OCI runtime spec
// that runc is given. It owns the meaning of every field of ContainerSpec that ends in a container:
// what the default is, what wins over what, what is refused and with which words.
//
// It is a pure function of its Input: it reads no file, asks no daemon and knows nothing of
// containerd. What must be looked up first (the user's number, the kernel's abilities, the files to
// mount) is part of the Input.
//
// Start with Build.
package ocispec
