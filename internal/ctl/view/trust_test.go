package view

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const day = 24 * time.Hour

func TestUsersAreShownWithWhenTheirCertificatesEnd(t *testing.T) {
	user := func(name string, role warrenv1.Role, left time.Duration) *warrenv1.User {
		return &warrenv1.User{
			Meta: meta(name, 3*day), Role: role, Life: durationpb.New(90 * day), KeyDigest: []byte{0xab, 0xcd},
			CertificateExpiresAt: timestamppb.New(now.Add(left)),
		}
	}
	table(t, "users", Users([]*warrenv1.User{
		user("anna", warrenv1.Role_ROLE_ADMIN, 87*day), user("ci", warrenv1.Role_ROLE_OPERATOR, 5*day), user("vera", warrenv1.Role_ROLE_VIEWER, -time.Hour),
	}, now))
}

func TestContextsAreShownWithWhatKeepsThemFromBeingUsed(t *testing.T) {
	shop := Context{
		Name: "shop", Used: true, ClusterName: "shop", Managers: []string{"10.0.0.1:7420", "10.0.0.2:7420", "10.0.0.3:7420"},
		Identity: pki.Identity{Cluster: "ptk7z5uo55ffdbpd", Role: warrenv1.Role_ROLE_OPERATOR, Name: "ci"}, ExpiresAt: now.Add(80 * day),
	}
	all, err := Contexts([]Context{
		{Name: "local", Socket: "/run/warren/manager.sock"}, shop,
		{Name: "open", Problem: "others can read or change it (mode 0644)"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	table(t, "contexts", all)
	golden(t, "context", DescribeContext(shop, now))
}
