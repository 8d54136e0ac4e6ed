package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Disks is the table of `system df`: a node a row.
func Disks(nodes []*warrenv1.GetDiskUsageResponse) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "NODE", Key: "Node"}, {Title: "FREE", Key: "Free"}, {Title: "OF", Key: "Total"}, {Title: "USED", Key: "Used"},
		{Title: "IMAGES", Key: "Images"}, {Title: "RECLAIMABLE", Key: "Reclaimable"}, {Title: "CONTAINERS", Key: "Containers"},
		{Title: "OUTPUT", Key: "Output"}, {Title: "DATA", Key: "Data"}, {Title: "PROBLEM", Key: "Problem", Elastic: true, Wide: true},
	}}
	for _, n := range nodes {
		row := output.Row{ID: n.GetNodeId(), Name: n.GetHostname(), Object: n, Cells: make([]output.Cell, len(t.Columns))}
		row.Cells[0] = cell(nodeName(n.GetHostname(), n.GetNodeId()))
		if d := n.GetDisk(); d != nil {
			row.Cells[1], row.Cells[2] = size(d.GetFreeBytes()), size(d.GetTotalBytes())
			row.Cells[3] = share(float64(d.GetTotalBytes()-min(d.GetFreeBytes(), d.GetTotalBytes())), float64(d.GetTotalBytes()))
			row.Cells[4] = output.Cell{Text: fmt.Sprintf("%s (%d)", Memory(int64(d.GetImageBytes())), len(d.GetImages()))}
			row.Cells[5] = size(d.GetReclaimableImageBytes())
			row.Cells[6] = output.Cell{Text: fmt.Sprintf("%s (%d)", Memory(int64(d.GetContainerBytes())), d.GetContainers())}
			row.Cells[7], row.Cells[8] = size(d.GetOutputBytes()), size(d.GetDataBytes())
		}
		if n.GetError() != "" {
			row.Cells[9] = output.Cell{Text: n.GetError(), Colour: output.Bad}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func size(bytes uint64) output.Cell { return cell(Memory(int64(bytes))) }

// DiskImages is the table of `system df --images`: an image of a node a row, the largest first.
func DiskImages(nodes []*warrenv1.GetDiskUsageResponse, now time.Time) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "NODE", Key: "Node"}, {Title: "IMAGE", Key: "Image", Elastic: true}, {Title: "SIZE", Key: "Size"},
		{Title: "USE", Key: "Use"}, {Title: "DIGEST", Key: "Digest", Wide: true},
	}}
	for _, n := range nodes {
		images := slices.Clone(n.GetDisk().GetImages())
		slices.SortStableFunc(images, func(a, b *warrenv1.StoredImage) int { return int(b.GetBytes()) - int(a.GetBytes()) })
		for _, i := range images {
			use := output.Cell{Text: "in use", Colour: output.Good}
			if !i.GetUsed() {
				use = cell("unused")
				if i.GetUnusedSince() != nil {
					use.Text = "unused for " + Lasting(max(0, now.Sub(i.GetUnusedSince().AsTime())))
				}
			}
			t.Rows = append(t.Rows, output.Row{
				ID: i.GetDigest(), Name: imageName(i), Object: i,
				Cells: []output.Cell{cell(nodeName(n.GetHostname(), n.GetNodeId())), imageCell(i), size(i.GetBytes()), use, cell(i.GetDigest())},
			})
		}
	}
	return t
}

// imageName is the name of an image that says most: one with a tag, where there is one.
func imageName(i *warrenv1.StoredImage) string {
	for _, name := range i.GetNames() {
		if !strings.Contains(name, "@") {
			return name
		}
	}
	if len(i.GetNames()) > 0 {
		return i.GetNames()[0]
	}
	return i.GetDigest()
}

// imageCell is an image's name, where it is one with a digest with the beginning of that.
func imageCell(i *warrenv1.StoredImage) output.Cell {
	c := cell(imageName(i))
	if name, digest, is := strings.Cut(c.Text, "@sha256:"); is {
		c.Short = name + "@sha256:" + ShortID(digest)
	}
	return c
}

// Pruned is the table of `system prune`: what was removed, or would be.
func Pruned(nodes []*warrenv1.PruneImagesResponse) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "NODE", Key: "Node"}, {Title: "IMAGE", Key: "Image", Elastic: true}, {Title: "SIZE", Key: "Size"},
	}}
	for _, n := range nodes {
		for _, i := range n.GetPruned().GetImages() {
			t.Rows = append(t.Rows, output.Row{
				ID: i.GetDigest(), Name: imageName(i), Object: i,
				Cells: []output.Cell{cell(nodeName(n.GetHostname(), n.GetNodeId())), imageCell(i), size(i.GetBytes())},
			})
		}
	}
	return t
}

// PrunedSummary says what a removal has freed, or would.
func PrunedSummary(nodes []*warrenv1.PruneImagesResponse, dryRun bool) string {
	var freed uint64
	images, on := 0, 0
	for _, n := range nodes {
		freed += n.GetPruned().GetFreedBytes()
		if some := len(n.GetPruned().GetImages()); some > 0 {
			images, on = images+some, on+1
		}
	}
	switch {
	case images == 0:
		return "No image is unused."
	case dryRun:
		return fmt.Sprintf("%s on %s would go, %s would be free.", count(images, "image", "images"), count(on, "node", "nodes"), Memory(int64(freed)))
	}
	return fmt.Sprintf("%s on %s removed, %s freed.", count(images, "image", "images"), count(on, "node", "nodes"), Memory(int64(freed)))
}
