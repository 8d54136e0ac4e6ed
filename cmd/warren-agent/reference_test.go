package main

import (
	"flag"
	"testing"

	"github.com/cuemby/warren/internal/daemonflags/daemonflagstest"
)

// referencePage tells every key of both daemons, for people.
const referencePage = "../../docs/reference/configuration.md"

var updateReference = flag.Bool("update", false, "write this daemon's part of docs/reference/configuration.md anew")

func TestTheReferenceTellsTheKeysThatThereAre(t *testing.T) {
	daemonflagstest.CheckReference[flags](t, program(), referencePage, map[string]string{"max-parallel-starts": "4 for each processor, from 8 to 32"}, *updateReference)
}
