package command

import (
	"cmp"
	"context"
	"errors"
	"runtime"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Version is `version`.
type Version struct {
	Client bool   `help:"Only warrenctl's own, without asking a manager."`
	Output string `short:"o" enum:"text,json,yaml" default:"text" help:"text, json or yaml." placeholder:"FORM"`
}

// build is what one program is.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Date      string `json:"date,omitempty"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// Run does it.
func (c *Version) Run(ctx context.Context, s *Session) error {
	own := build{version.Version, version.Commit, version.Date, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	builds := struct {
		Client  build  `json:"client"`
		Manager *build `json:"manager,omitempty"`
	}{Client: own}
	var failed error
	if !c.Client {
		res, err := s.Cluster.GetVersion(ctx, connect.NewRequest(&warrenv1.GetVersionRequest{}))
		if failed = err; err == nil {
			m := res.Msg
			builds.Manager = &build{m.GetVersion(), m.GetCommit(), "", m.GetGoVersion(), m.GetPlatform()}
		}
	}
	if c.Output != "text" {
		return errors.Join(output.Value(s.Out, c.Output, builds), failed)
	}
	// What can be said is said before what went wrong.
	err := s.print("warrenctl       " + builds.Client.line())
	if builds.Manager != nil {
		err = errors.Join(err, s.print("warren-manager  "+builds.Manager.line()))
	}
	return errors.Join(err, failed)
}

func (b build) line() string {
	line := b.Version + " (commit " + cmp.Or(b.Commit, "unknown")
	if b.Date != "" {
		line += ", built " + b.Date
	}
	return line + ", " + b.GoVersion + ", " + b.Platform + ")"
}
