// Package reference writes the page of docs/reference that tells every command with its arguments and flags. It reads the
// model that kong makes of the command line, so that the page says what the program understands and nothing else.
//
// It knows no command, reads no file and writes none: cmd/warrenctl, which has the model, holds the page to it in a test.
//
// Start with Markdown.
package reference
