// Package output puts results before people and programs: aligned tables, JSON, YAML, Go templates,
// names and ids, in colour where a terminal wants it.
//
// It owns the flags -o, -q, --format and --no-trunc, the knowledge of what the standard streams are
// (terminal or not, how wide, colour or not; NO_COLOR is obeyed), the cleaning of text that came from
// containers before it reaches a terminal, and Go's conversion of API messages to JSON and YAML. It
// does not know what a service is: package view turns objects into tables.
//
// Start reading at Flags.List.
package output
