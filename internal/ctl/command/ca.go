package command

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/ctl/progress"
	"github.com/cuemby/warren/internal/ctl/view"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ClusterCA are the commands about the cluster's certificate authority.
type ClusterCA struct {
	Rotate CARotate `cmd:"" aliases:"replace" help:"Replace the CA, while everything goes on."`
	Ls     CALs     `cmd:"" aliases:"list" help:"List the CAs that are trusted: two while one replaces the other."`
	Show   CAShow   `cmd:"" aliases:"get" help:"Print the certificates of the CAs that are trusted, as PEM."`
}

// CARotate is `cluster ca rotate`.
type CARotate struct {
	Detach  bool           `short:"d" group:"Progress" help:"Return at once, wait for nothing."`
	Quiet   bool           `short:"q" group:"Progress" help:"Wait, but show no progress."`
	Timeout *time.Duration `group:"Progress" help:"Give up waiting after this long; 0 for never. Default: never on a terminal, elsewhere after 10m with nothing coming nearer." placeholder:"DURATION"`
}

// Help is the text below the usage line.
func (CARotate) Help() string {
	return `Members renew their certificates by the new CA, and when the last one has, the old CA is forgotten. A member that is down holds
that up until it is back or removed. Users whose warrenctl does not call meanwhile need a new context afterwards. The digest of the
new CA is printed on standard output, progress on standard error. Ctrl-C ends the looking on, not the work; a second rotate
while one is under way looks on as well.

Example:

    warrenctl cluster ca rotate`
}

// Run does it.
func (c *CARotate) Run(ctx context.Context, s *Session) error {
	res, err := s.Client.Trust.RotateCA(ctx, connect.NewRequest(&warrenv1.RotateCARequest{}))
	if err != nil {
		return err
	}
	begun := res.Msg.GetTrust()
	if len(begun.GetAuthorities()) == 0 {
		return errNoCA
	}
	if err := s.print(begun.GetAuthorities()[0].GetDigest()); err != nil || c.Detach {
		return err
	}
	streams := *s.Streams
	if c.Quiet {
		streams.Err = output.Stream{Writer: io.Discard}
	}
	limits := progress.Limits{}
	switch {
	case c.Timeout != nil:
		limits.Timeout = *c.Timeout
	case !s.Err.Terminal:
		limits.Stall = stallLimit
	}
	return progress.FollowRotation(ctx, s.Client, &streams, begun, limits)
}

// errNoCA says that the manager has told of no CA.
var errNoCA = errors.New("the cluster has no certificate authority: it was made before there were any; see docs/certificates.md")

// CALs is `cluster ca ls`.
type CALs struct {
	output.ListFlags `set:"columns={{.Digest}}: {{.Status}}"`
}

// Run does it.
func (c *CALs) Run(ctx context.Context, s *Session) error {
	trust, err := s.trust(ctx)
	if err != nil {
		return err
	}
	if len(trust.GetAuthorities()) > 1 {
		said := append([]string{progress.RenewedOf(trust)}, progress.WaitingFor(trust)...)
		s.Err.Printf("The CA is being replaced since %s: %s.", view.Ago(trust.GetRotationStartedAt(), s.Now()), strings.Join(said, "; "))
	}
	return c.List(s.Out, view.Authorities(trust, s.Now()))
}

// CAShow is `cluster ca show`.
type CAShow struct {
	Output string `short:"o" enum:"pem,json,yaml" default:"pem" help:"pem, json or yaml." placeholder:"FORM"`
}

// Help is the text below the usage line.
func (CAShow) Help() string {
	return "The one that issues comes first. With it other programs know a manager:\n\n    warrenctl cluster ca show > ca.pem && curl --cacert ca.pem https://MANAGER:7420/"
}

// Run does it.
func (c *CAShow) Run(ctx context.Context, s *Session) error {
	trust, err := s.trust(ctx)
	if err != nil {
		return err
	}
	if c.Output != "pem" {
		return output.ListFlags{Output: c.Output}.List(s.Out, view.Authorities(trust, s.Now()))
	}
	for _, ca := range trust.GetAuthorities() {
		if err := pem.Encode(s.Out, &pem.Block{Type: "CERTIFICATE", Bytes: ca.GetCertificate()}); err != nil {
			return err
		}
	}
	return nil
}

// trust asks how the cluster's CAs stand.
func (s *Session) trust(ctx context.Context) (*warrenv1.Trust, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Client.Trust.WatchTrust(ctx, connect.NewRequest(&warrenv1.WatchTrustRequest{}))
	if err != nil {
		return nil, err
	}
	defer func() {
		cancel() // Close waits for the end of the stream
		stream.Close()
	}()
	if !stream.Receive() && stream.Err() != nil {
		return nil, stream.Err()
	}
	if trust := stream.Msg().GetTrust(); len(trust.GetAuthorities()) > 0 {
		return trust, nil
	}
	return nil, errNoCA
}
