// Package numbers reads numbers as flags, and says of what is none what there should be. What bounds a number has
// beside that of its type is the manager's to say.
package numbers
