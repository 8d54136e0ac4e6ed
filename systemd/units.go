// Package systemd holds the units of Warren's daemons, their users and folders, as packages install them; tests put the same
// ones on their machines.
package systemd

import "embed"

// Files are the files by name: units by the names they are installed by, NAME.sysusers and NAME.tmpfiles as NAME.conf in
// sysusers.d and tmpfiles.d.
//
//go:embed *.service *.socket *.sysusers *.tmpfiles
var Files embed.FS
