package command

import (
	"cmp"
	"context"
	"errors"
	"runtime"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/view"
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
		// Cluster are the versions of all its managers and nodes.
		Cluster []view.ClusterVersion `json:"cluster,omitempty"`
	}{Client: own}
	var failed error
	if !c.Client {
		res, err := s.Cluster.GetVersion(ctx, connect.NewRequest(&warrenv1.GetVersionRequest{}))
		if failed = err; err == nil {
			m := res.Msg
			builds.Manager = &build{m.GetVersion(), m.GetCommit(), "", m.GetGoVersion(), m.GetPlatform()}
			if m.GetInitialized() {
				builds.Cluster, failed = s.versions(ctx)
			}
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
	if len(builds.Cluster) > 0 {
		err = errors.Join(err, s.print(""), output.ListFlags{Output: "table"}.List(s.Out, view.Versions(builds.Cluster)))
	}
	return errors.Join(err, failed)
}

// versions are those of all managers and nodes of the cluster.
func (s *Session) versions(ctx context.Context) ([]view.ClusterVersion, error) {
	res, err := s.Cluster.GetCluster(ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		return nil, err
	}
	nodes, err := s.ListNodes(ctx)
	if err != nil {
		return nil, err
	}
	return view.ClusterVersions(res.Msg.GetManagers(), nodes), nil
}

func (b build) line() string {
	line := b.Version + " (commit " + cmp.Or(b.Commit, "unknown")
	if b.Date != "" {
		line += ", built " + b.Date
	}
	return line + ", " + b.GoVersion + ", " + b.Platform + ")"
}
