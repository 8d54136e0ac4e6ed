// Package manager puts a manager together and runs it: what runs always, and what runs only while it
// leads.
//
// Start with New and Manager.Run (manager.go). Always running are raft, the API on its listeners
// (listen.go) and whoever follows the lead (leader.go). While leading, the control loops run too,
// with the dispatcher that serves agents and the log of events; all of them have ended before the next
// term begins. membership.go makes a new cluster and tells the API where this manager stands.
//
// The package decides nothing about workloads; the packages below it do.
package manager
