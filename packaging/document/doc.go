// Package document writes what packages tell of a program: man pages and a commented configuration file. Both come from
// the program's kong struct, so that they say what the program understands. So does docs/reference/configuration.md, to which the daemons' tests hold it.
//
// The programs write them themselves when they are built with the tag "documents" (packaging/build.sh does); no daemon carries any of this.
// mango-kong, which is made for this, knows neither defaults, environment nor arguments, and puts all commands into one page.
//
// Start with Daemon, CommandLine and Keys.
package document
