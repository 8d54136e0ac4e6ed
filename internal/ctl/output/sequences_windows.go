package output

import (
	"os"

	"golang.org/x/sys/windows"
)

// enableSequences has the console interpret escape sequences, which it does only when asked, and
// tells whether it agreed.
func enableSequences(f *os.File) bool {
	console := windows.Handle(f.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
