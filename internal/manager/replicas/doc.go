// Package replicas is the control loop that decides how many tasks a service has: which slots there
// are, and that each holds a task.
//
// Start with decide. It gives a replicated service as many slots as it has replicas and a global one a slot on
// each node that its placement allows, fills the slots that hold no live task, backing off where tasks
// keep failing, and gives up the slots that are too many. When a service is being removed it takes
// down the tasks and then the service itself.
//
// It never touches a slot that holds a live task and is to stay: replacing one task by another is the
// rollout loop's. It chooses no node for a replicated task: that is the scheduler's.
package replicas
