// Package dispatch holds the agents' sessions: assignments go out, observed status comes in, and
// whether a node's agent is heard of is written to the node.
//
// Start with Dispatcher. Attend serves one agent's stream from its hello on. Run works only while
// this manager leads: it reads the feed of the state once for all sessions, marks in each which
// tasks its node must hear of, and each session's sender wakes at once and sends what has gathered.
//
// What is decided stands apart from what is done: ledger knows what a node's agent must be told,
// accept whether a report is news, decideNode what a node's object should say, pulse when an agent
// has been silent for too long. A node's tasks are never touched here beyond their status, and
// that a node is down is the liveness loop's to say.
package dispatch
