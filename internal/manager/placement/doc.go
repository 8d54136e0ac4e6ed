// Package placement holds the rules of where tasks may go: constraints, platforms, and whether a
// node takes new tasks at all.
//
// Start with Compile, which makes Rules of a service's placement; Rules.Admits tells whether a node
// fits, Rules.OnPlatform and Rules.Violated why not. Parse reads one constraint and is what the API
// checks users' input with. Admits is Compile and Rules.Admits in one, for a single look.
//
// Everything here is a pure function of a placement and a node. The package counts no resources and
// chooses nothing: that is the scheduler's matter.
package placement
