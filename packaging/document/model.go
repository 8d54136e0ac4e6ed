package document

import (
	"github.com/alecthomas/kong"

	"github.com/cuemby/warren/internal/daemonflags"
)

// Model is what a daemon's program can be told, which it reads into a struct as kong would: daemonflags reads kong's tags.
func Model(p daemonflags.Program, into any) (*kong.Application, error) {
	parser, err := kong.New(into, kong.Name(p.Name), kong.Description(p.Description), kong.DefaultEnvars(p.Env), kong.Vars(p.Vars))
	if err != nil {
		return nil, err
	}
	return parser.Model, nil
}
