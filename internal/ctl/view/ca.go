package view

import (
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Authorities is the table of `cluster ca ls`.
func Authorities(trust *warrenv1.Trust, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "DIGEST", Key: "Digest"}, {Title: "STATUS", Key: "Status"}, {Title: "CREATED", Key: "Created"}, {Title: "EXPIRES", Key: "Expires"},
	}}
	for i, ca := range trust.GetAuthorities() {
		status := output.Cell{Text: "Issues", Colour: output.Good}
		if i > 0 {
			status = output.Cell{Text: "Trusted until all have renewed", Colour: output.Warning}
		}
		t.Rows = append(t.Rows, output.Row{
			ID: ca.GetDigest(), Name: ca.GetDigest(), Object: ca,
			Cells: []output.Cell{cell(ca.GetDigest()), status, cell(Ago(ca.GetCreatedAt(), now)), cell(ca.GetExpiresAt().AsTime().UTC().Format(time.DateOnly))},
		})
	}
	return t
}
