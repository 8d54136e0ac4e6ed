package daemonflags

import "github.com/alecthomas/kong"

// HelpWithDefault is kong's help of a flag with its default, which kong leaves out where there is a placeholder.
func HelpWithDefault(value *kong.Value) string {
	if value.Flag != nil && value.Flag.PlaceHolder != "" && value.HasDefault && value.Default != "0" {
		described := *value
		described.Help += " Default: " + value.Default + "."
		value = &described
	}
	return kong.DefaultHelpValueFormatter(value)
}
