// Package supervisor makes a node's assignments real: it compares the tasks the manager wants here
// with the containers that are here, and starts, restarts, stops and removes until they agree.
//
// Start with Supervisor, which knows the tasks and hears the runtime's events, then task.go, the life
// of one task from top to bottom: takeup.go, stop.go and sweep.go are its beginning under a new agent and
// its end. What is decided is apart from what is done: policy.go says what follows when a program ends,
// recall.go what to make of the containers an earlier agent left behind. network.go is when a task is
// sent connections, health.go what follows from its being healthy or not, status.go what is reported.
//
// It owns the tasks' containers and what is observed of them. (attempt, state) of a task never
// decreases here, and what has ended never runs again. It needs no manager: it goes on with the last
// assignments. It knows neither containerd nor the overlay; Runtime, Network, Prober, Output and Journal are its
// view of the world.
package supervisor
