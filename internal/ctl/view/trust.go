package view

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Expiry says when a certificate ends, or ended: in 3 months.
func Expiry(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	left := t.AsTime().Sub(now)
	if left <= 0 {
		return "expired " + Ago(t, now)
	}
	return "in " + lowerFirst(units.HumanDuration(left))
}

// soon is how long before its end a certificate catches the eye.
const soon = 14 * 24 * time.Hour

func expiry(t *timestamppb.Timestamp, now time.Time) output.Cell {
	c := cell(Expiry(t, now))
	if t == nil {
		return c
	}
	switch left := t.AsTime().Sub(now); {
	case left <= 0:
		c.Colour = output.Bad
	case left < soon:
		c.Colour = output.Warning
	}
	return c
}

// Users is the table of `user ls`.
func Users(users []*warrenv1.User, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "NAME", Key: "Name"}, {Title: "ROLE", Key: "Role"}, {Title: "EXPIRES", Key: "Expires"}, {Title: "CREATED", Key: "Created"},
		{Title: "LIFE", Key: "Life", Wide: true}, {Title: "KEY", Key: "Key", Wide: true},
	}}
	for _, u := range users {
		name := u.GetMeta().GetId()
		t.Rows = append(t.Rows, output.Row{
			ID: name, Name: name, Object: u,
			Cells: []output.Cell{
				cell(name), cell(pki.RoleName(u.GetRole())), expiry(u.GetCertificateExpiresAt(), now), cell(Ago(u.GetMeta().GetCreatedAt(), now)),
				cell(duration(u.GetLife())), cell(hex.EncodeToString(u.GetKeyDigest())),
			},
		})
	}
	return t
}

// Context is what people may see of a context: all but its key.
type Context struct {
	Name string
	// Used says that it is the one that commands use.
	Used        bool
	ClusterName string
	Managers    []string
	Identity    pki.Identity
	ExpiresAt   time.Time
	Roots       []*x509.Certificate
	// Socket is set for the manager on this machine, of which the rest is unset.
	Socket string
	// Problem is why it cannot be used.
	Problem string
}

// User is the user's name.
func (c Context) User() string { return c.Identity.Name }

// Role is the user's role in a word.
func (c Context) Role() string { return pki.RoleName(c.Identity.Role) }

// Cluster is the cluster's id.
func (c Context) Cluster() string { return c.Identity.Cluster }

// endpoints are where managers are reached.
func (c Context) endpoints() string {
	switch {
	case c.Socket != "":
		return "unix://" + c.Socket
	case len(c.Managers) > 1:
		return fmt.Sprintf("%s and %d more", c.Managers[0], len(c.Managers)-1)
	case len(c.Managers) == 1:
		return c.Managers[0]
	}
	return ""
}

// Object returns a context as programs are shown it.
func (c Context) Object() (*structpb.Struct, error) {
	o := map[string]any{"name": c.Name, "current": c.Used}
	for key, value := range map[string]string{
		"socket": c.Socket, "problem": c.Problem, "clusterName": c.ClusterName, "clusterId": c.Cluster(), "user": c.User(), "role": c.Role(),
	} {
		if value != "" {
			o[key] = value
		}
	}
	if len(c.Managers) > 0 {
		var managers []any
		for _, m := range c.Managers {
			managers = append(managers, m)
		}
		o["managers"] = managers
	}
	if !c.ExpiresAt.IsZero() {
		o["certificateExpiresAt"] = c.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return structpb.NewStruct(o)
}

func (c Context) expires() *timestamppb.Timestamp {
	if c.ExpiresAt.IsZero() {
		return nil
	}
	return timestamppb.New(c.ExpiresAt)
}

// Contexts is the table of `context ls`.
func Contexts(all []Context, now time.Time) (*output.Table, error) {
	t := &output.Table{Columns: []output.Column{
		{Title: "CURRENT", Key: "Current"}, {Title: "NAME", Key: "Name"}, {Title: "CLUSTER", Key: "Cluster"}, {Title: "USER", Key: "User"},
		{Title: "ROLE", Key: "Role"}, {Title: "MANAGERS", Key: "Managers", Elastic: true}, {Title: "EXPIRES", Key: "Expires", Elastic: true},
	}}
	for _, c := range all {
		object, err := c.Object()
		if err != nil {
			return nil, err
		}
		current := ""
		if c.Used {
			current = "*"
		}
		expires := expiry(c.expires(), now)
		if c.Problem != "" {
			expires = output.Cell{Text: c.Problem, Colour: output.Bad}
		}
		t.Rows = append(t.Rows, output.Row{
			ID: c.Name, Name: c.Name, Object: object,
			Cells: []output.Cell{cell(current), cell(c.Name), cell(c.ClusterName), cell(c.User()), cell(c.Role()), cell(c.endpoints()), expires},
		})
	}
	return t, nil
}

// DescribeContext describes a context in full, but for its key.
func DescribeContext(c Context, now time.Time) string {
	p := &page{}
	p.say("Name", c.Name)
	if c.Used {
		p.say("Current", "yes")
	}
	if c.Socket != "" {
		p.say("Socket", c.Socket)
		return p.String()
	}
	p.say("Cluster", c.ClusterName)
	p.say("Cluster id", c.Cluster())
	p.say("User", c.User())
	p.say("Role", c.Role())
	p.list("Managers", c.Managers)
	p.say("Expires", Expiry(c.expires(), now)+" ("+c.ExpiresAt.UTC().Format(time.RFC3339)+")")
	var digests []string
	for _, root := range c.Roots {
		digests = append(digests, pki.Digest(root))
	}
	p.list("CA", digests)
	return p.String()
}
