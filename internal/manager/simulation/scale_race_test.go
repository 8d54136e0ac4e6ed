//go:build race

package simulation

// The race detector makes everything an order of magnitude slower.
const (
	manyNodes = 40
	someSeeds = 3
)
