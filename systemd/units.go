// Package systemd holds the units of Warren's daemons, as packages install them; tests put the same ones on their machines.
package systemd

import "embed"

// Units are the unit files by name.
//
//go:embed *.service *.socket
var Units embed.FS
