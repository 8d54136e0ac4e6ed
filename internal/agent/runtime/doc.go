// Package runtime makes containers out of tasks with containerd, and is the only package of the
// project that knows containerd.
//
// It owns what a task has on its node below the level of intentions: images, containers, snapshots,
// processes, pipes for their output, the few files mounted into them. It decides nothing: what should
// run, when to restart it and when to give up is the supervisor's. It keeps no state of its own that a
// restart could lose: everything is labelled in containerd, and List tells what exists.
//
// Every operation may be repeated from any half-way point. While containerd is away they wait for
// it until their context ends; containers do not notice.
//
// Start with Runtime, then Create and the order in it, then Events. The OCI spec is made by the
// package ocispec.
package runtime
