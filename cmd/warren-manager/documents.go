//go:build documents

package main

import (
	"fmt"
	"os"

	"github.com/cuemby/warren/packaging/document"
)

// main writes, in place of being a manager, what packages tell of it into a folder.
func main() {
	if err := documents(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
}

func documents(dir string) error {
	var f flags
	model, err := document.Model(program(), &f)
	if err != nil {
		return err
	}
	page := document.Daemon(model, document.Also{Heading: "COMMANDS", Entries: [][2]string{
		{"warren-manager config check [flags]", "Checks the configuration file and the flags, and ends: with 0 where a manager would begin with them, else with 2. Root, who gives no flags, has it done as the user warren-manager: what the manager is to read, that user must be able to."},
	}}, document.Also{Heading: "FILES", Entries: [][2]string{
		{"/etc/warren/manager.yaml", "The configuration."},
		{"/etc/credstore/warren-manager.join-token", "The token to join with, which the unit hands on as a credential. It may be missing."},
		{"/var/lib/warren/manager", "The manager's identity and the cluster's state."},
	}}, document.Also{Heading: "EXIT STATUS", Entries: [][2]string{
		{"0", "It was told to stop."},
		{"1", "It could not go on."},
		{"2", "Its flags or its configuration are wrong."},
	}}, document.Also{Heading: "SEE ALSO", Entries: [][2]string{{"warrenctl(1), warren-agent(8)", ""}}})
	return document.Write(dir, []document.Page{page}, map[string]string{"manager.yaml": document.Config(model, "/etc/warren/manager.yaml")})
}
