// Package version knows which build of Warren this is. The three programs print it, agents report it.
package version

import (
	"fmt"
	"runtime"
	"strings"
)

// Set when a release is built: go build -ldflags "-X github.com/cuemby/warren/internal/version.Version=…".
var (
	// Version is the release, such as 1.4.2.
	Version = "dev"
	// Commit is the revision of the source, Date when the program was built.
	Commit string
	Date   string
)

// String is the build in one line, as a program's --version prints it:
// "warren-agent 1.4.2 (commit 1f2e3d4, built 2026-11-02, go1.26.8, linux/amd64)".
func String(program string) string {
	var details []string
	if Commit != "" {
		details = append(details, "commit "+Commit)
	}
	if Date != "" {
		details = append(details, "built "+Date)
	}
	details = append(details, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	return fmt.Sprintf("%s %s (%s)", program, Version, strings.Join(details, ", "))
}
