package view

import (
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ManagerStatus is a manager's standing in a word, as Docker's users know it.
func ManagerStatus(m *warrenv1.Manager) string {
	switch {
	case m.GetLeader():
		return "leader"
	case !m.GetReachable():
		return "unreachable"
	case !m.GetVoter():
		return "catching up"
	}
	return "reachable"
}

// Quorum says how many managers may be lost.
func Quorum(c *warrenv1.GetClusterResponse) string {
	voters := 0
	for _, m := range c.GetManagers() {
		if m.GetVoter() {
			voters++
		}
	}
	said := fmt.Sprintf("%d of %d managers agree, %d reachable", c.GetQuorum(), voters, c.GetManagersReachable())
	switch spare := int(c.GetManagersReachable()) - int(c.GetQuorum()); {
	case spare < 0:
		return said + ": lost, nothing can be written; see `warrenctl cluster recover --help`"
	case spare == 0 && voters > 1:
		return said + ": none may be lost any more"
	case spare == 0:
		return said + ": with one manager there is no spare, three survive the loss of one"
	}
	return said + fmt.Sprintf(": %d may be lost", int(c.GetManagersReachable())-int(c.GetQuorum()))
}

// Managers is the table of `manager ls`.
func Managers(managers []*warrenv1.Manager, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "ID", Key: "ID"}, {Title: "HOSTNAME", Key: "Hostname"}, {Title: "STATUS", Key: "Status"},
		{Title: "ADDRESS", Key: "Address"}, {Title: "VERSION", Key: "Version"},
		{Title: "CERTIFICATE EXPIRES", Key: "Expires", Wide: true},
	}}
	for _, m := range managers {
		expires := ""
		if m.GetCertificateExpiresAt() != nil {
			expires = m.GetCertificateExpiresAt().AsTime().Format(time.DateOnly)
		}
		t.Rows = append(t.Rows, output.Row{
			ID: m.GetId(), Name: m.GetHostname(), Object: m,
			Cells: []output.Cell{
				id(m.GetId()), cell(m.GetHostname()),
				{Text: capital(ManagerStatus(m)), Colour: managerColour(m)},
				cell(m.GetAddr()), cell(m.GetVersion()), cell(expires),
			},
		})
	}
	return t
}

func managerColour(m *warrenv1.Manager) output.Colour {
	switch {
	case m.GetLeader(), m.GetReachable() && m.GetVoter():
		return output.Good
	case !m.GetReachable():
		return output.Bad
	}
	return output.Warning
}
