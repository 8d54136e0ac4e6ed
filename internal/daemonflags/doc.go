// Package daemonflags reads what is said to warren-manager and warren-agent: on the command line, in the
// environment, in a configuration file that takes the same words (ConfigFile). The first of these that
// says it wins. Each daemon's struct is the single definition of what can be said to it; Program.Parse
// fills it, and makes the help of it. At SIGHUP a Reloader looks at it all again.
//
// It reads the struct tags that warrenctl's library reads, and few of them. That library looks methods up
// by names it works out while it runs, which makes the linker keep every exported method of every type
// of a program: four to five megabytes of each daemon. docs/decisions/0015-daemons-flags.md has the figures.
package daemonflags
