package digest

import "regexp"

// whole is a digest as registries write it; the first part of it is kept.
var whole = regexp.MustCompile(`\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b`)

// Shorten shortens every digest in a text to twelve hexadecimal digits.
func Shorten(text string) string { return whole.ReplaceAllString(text, "$1") }
