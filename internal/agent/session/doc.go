// Package session is the agent's line to the managers: it says hello, hears assignments, reports
// statuses, heartbeats, and dials back for the streams a manager asks for. All of it goes over TLS, with the
// node's certificate.
//
// Start with Run, which tries one manager after the other until one welcomes this node, and again
// when the line breaks; round.go is whom to try next, attend.go one session, relay.go a stream on demand,
// backoff.go how long to wait between tries. Whatever gathers while a message is on its way goes with the
// next one; nothing ticks but the heartbeat.
//
// It owns no state but the line: what it hears it hands on, what it says it is given. It touches no
// container, and a line that is down stops none.
package session
