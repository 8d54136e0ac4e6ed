// Package logging is how daemons write their log: as text or JSON, or to systemd's journal with each
// attribute a field of its own (Journal). Level and format can be changed while the daemon runs: a Log
// holds them, and what its loggers write from then on follows.
//
// What is logged, and under which keys, is the business of those who log. Start reading at Log.
package logging
