//go:build !race

package simulation

// How large the first simulated cluster is, and how many are simulated.
const (
	manyNodes = 200
	someSeeds = 8
)

// someSchedules is how many schedules of faults three managers go through for each seed.
const someSchedules = 40

// someWorlds is how many small worlds are run.
const someWorlds = 2000
