// Package durations reads how long something takes, as users write it.
//
// Every duration on warrenctl's command line, alone as a flag's value or inside one, is read by Parse, so that
// all of them take the same forms and refuse the rest in the same words. Flags has the parser of the command line
// do so. What bounds a duration has beside that is the manager's to say.
package durations
