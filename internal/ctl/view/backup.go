package view

import (
	"strconv"
	"time"

	"github.com/cuemby/warren/internal/backupfile"
)

// Backup describes what is in a backup; size and sum are those of its file.
func Backup(c *backupfile.Contents, encrypted bool, size int64, sum string, now time.Time) string {
	p := &page{}
	p.say("Cluster", c.Header.GetClusterName())
	p.say("ID", c.Header.GetClusterId())
	p.say("Made", when(c.Header.GetCreatedAt(), now))
	p.say("By", "warren-manager "+c.Header.GetVersion())
	p.say("Index", strconv.FormatUint(c.Header.GetIndex(), 10))
	p.say("Nodes", strconv.Itoa(c.Nodes))
	p.say("Services", strconv.Itoa(c.Services))
	p.say("Tasks", strconv.Itoa(c.Tasks))
	p.say("Users", strconv.Itoa(c.Users))
	p.say("Managers", strconv.Itoa(len(c.Managers)))
	protected := "no: it holds the cluster's keys in the open"
	if encrypted {
		protected = "yes"
	}
	p.say("Encrypted", protected)
	p.say("Size", Memory(size))
	p.say("SHA-256", sum)
	p.say("Checksum", "right")
	return p.String()
}
