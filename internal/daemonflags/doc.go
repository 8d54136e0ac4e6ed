// Package daemonflags is what the flags of warren-manager and warren-agent have in common: a
// configuration file that takes the same words (ConfigFile) and is read anew at SIGHUP (Reloader), logging
// (Logging), and a help that shows defaults (HelpWithDefault). What is on the command line wins over the environment, and that over the
// file.
//
// Each daemon's kong struct remains the single definition of what can be said to it.
package daemonflags
