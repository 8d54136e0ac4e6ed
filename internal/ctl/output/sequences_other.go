//go:build !windows

package output

import "os"

// enableSequences tells that the terminal understands escape sequences, as they all do here.
func enableSequences(*os.File) bool { return true }
