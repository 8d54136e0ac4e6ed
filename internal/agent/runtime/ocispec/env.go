package ocispec

import (
	"fmt"
	"strings"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// buildEnv returns the image's variables with the user's over them, each name once, in the order in
// which they were first named.
func buildEnv(in Input, hostname string) ([]string, error) {
	container := in.Spec.GetContainer()
	env := environment{place: make(map[string]int)}
	env.set(defaultPath)
	env.set("HOSTNAME=" + hostname)
	if container.GetTty() {
		env.set("TERM=xterm")
	}
	for _, variable := range in.Image.Env {
		env.set(variable)
	}
	for _, variable := range container.GetEnv() {
		expanded, err := in.Names.Expand(variable)
		if err != nil {
			name, _, _ := strings.Cut(variable, "=")
			return nil, fmt.Errorf("env %s: %w", name, err)
		}
		env.set(expanded)
	}
	return env.variables, nil
}

type environment struct {
	variables []string
	place     map[string]int
}

func (e *environment) set(variable string) {
	name, _, _ := strings.Cut(variable, "=")
	if at, known := e.place[name]; known {
		e.variables[at] = variable
		return
	}
	e.place[name] = len(e.variables)
	e.variables = append(e.variables, variable)
}
