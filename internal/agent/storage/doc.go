// Package storage keeps the node's disk tidy, and tells what takes it up. It removes the images that tasks have
// brought here and none has used for a while, sooner where the disk gets full, and on request all that none uses.
//
// Which images go is decided in decide.go, which touches nothing; Keeper carries it out. Since when an image is
// unused is kept with the image, so that a restart of the agent begins no new time.
package storage
