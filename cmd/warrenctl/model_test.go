package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/ctl/output"
)

// model returns the command line's parser.
func model(t *testing.T) *kong.Kong {
	t.Helper()
	return newParser(t.Context(), &cli{}, output.Standard(), func(int) {})
}

// words are what one types for a command.
func words(n *kong.Node) []string {
	if n.Type != kong.CommandNode {
		return nil
	}
	return append(words(n.Parent), n.Name)
}

func TestEveryDurationIsRefusedInTheSameWords(t *testing.T) {
	parser, found := model(t), 0
	for _, command := range parser.Model.Leaves(true) {
		name := strings.Join(words(command), " ")
		for _, flag := range command.Flags {
			of := flag.Target.Type()
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if of != reflect.TypeFor[time.Duration]() {
				if flag.PlaceHolder == "DURATION" {
					t.Errorf("%s --%s is a duration and not a time.Duration", name, flag.Name)
				}
				continue
			}
			found++
			for value, want := range map[string]string{
				"5":   `--` + flag.Name + `: "5" is no duration: write it with a unit, as 5s, 2m30s, 1h or 30d`,
				"-3s": `--` + flag.Name + `: "-3s" is no duration: none is below zero; write it`,
				"abc": `--` + flag.Name + `: "abc" is no duration: write it`,
			} {
				_, err := parser.Parse(slices.Concat(words(command), []string{"--" + flag.Name, value}))
				if err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("%s --%s %s: %v", name, flag.Name, value, err)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d durations are there", found)
	}
}
