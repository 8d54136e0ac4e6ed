//go:build documents

package main

import (
	"fmt"
	"os"

	"github.com/cuemby/warren/packaging/document"
)

// main writes, in place of being an agent, what packages tell of it into a folder.
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
	for _, flag := range model.Flags {
		if flag.Name == "max-parallel-starts" { // which is that of the machine this runs on
			flag.HasDefault = false
			flag.PlaceHolder = "8"
		}
	}
	page := document.Daemon(model, document.Also{Heading: "COMMANDS", Entries: [][2]string{
		{"warren-agent config check [flags]", "Checks the configuration file and the flags, and ends: with 0 where an agent would begin with them, else with 2."},
		{"warren-agent end-tasks [flags]", "With the agent stopped: stops and removes all containers of its tasks."},
		{"warren-agent disconnect [flags]", "With the agent stopped: takes down what agents have left up of the cluster's network."},
		{"warren-agent wireguard [flags]", "The process of the WireGuard device, where the kernel has none; warren-wireguard.service runs it. It has a --help of its own."},
	}}, document.Also{Heading: "FILES", Entries: [][2]string{
		{"/etc/warren/agent.yaml", "The configuration."},
		{"/etc/credstore/warren-agent.join-token", "The token to join with, which the unit hands on as a credential. It may be missing."},
		{"/var/lib/warren/agent", "The node's identity, its assignments, its tasks' output."},
	}}, document.Also{Heading: "EXIT STATUS", Entries: [][2]string{
		{"0", "It was told to stop."},
		{"1", "It could not go on."},
		{"2", "Its flags or its configuration are wrong."},
	}}, document.Also{Heading: "SEE ALSO", Entries: [][2]string{{"warrenctl(1), warren-manager(8)", ""}}})
	return document.Write(dir, []document.Page{page}, map[string]string{"agent.yaml": document.Config(model, "/etc/warren/agent.yaml")})
}
