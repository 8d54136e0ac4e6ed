//go:build race

package simulation

// The race detector makes everything an order of magnitude slower.
const (
	manyNodes = 40
	someSeeds = 3
)

// someSchedules is how many schedules of faults three managers go through for each seed.
const someSchedules = 5

// someWorlds is how many small worlds are run.
const someWorlds = 100
