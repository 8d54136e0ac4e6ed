//go:build documents

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/cuemby/warren/internal/ctl/completion"
	"github.com/cuemby/warren/internal/ctl/failure"
	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/packaging/document"
)

// main writes, in place of doing what it is told, what packages tell of warrenctl into a folder.
func main() {
	var c cli
	parser := newParser(context.Background(), &c, output.Standard(), os.Exit)
	err := document.Write(os.Args[1], document.CommandLine(parser.Model), map[string]string{
		"warrenctl.bash": completion.Script("bash", parser.Model.Name),
		"warrenctl.zsh":  completion.Script("zsh", parser.Model.Name),
		"warrenctl.fish": completion.Script("fish", parser.Model.Name),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(failure.Failed)
	}
}
