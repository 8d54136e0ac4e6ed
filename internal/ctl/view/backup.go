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

// BackupFacts is what is in a backup, for programs.
type BackupFacts struct {
	ClusterName string   `json:"clusterName"`
	ClusterID   string   `json:"clusterId"`
	CreatedAt   string   `json:"createdAt"`
	Version     string   `json:"version"`
	Index       uint64   `json:"index"`
	Nodes       int      `json:"nodes"`
	Services    int      `json:"services"`
	Tasks       int      `json:"tasks"`
	Users       int      `json:"users"`
	Managers    []string `json:"managers"`
	Encrypted   bool     `json:"encrypted"`
	Size        int64    `json:"size"`
	SHA256      string   `json:"sha256"`
}

// NewBackupFacts returns the same as Backup describes.
func NewBackupFacts(c *backupfile.Contents, encrypted bool, size int64, sum string) BackupFacts {
	return BackupFacts{
		ClusterName: c.Header.GetClusterName(), ClusterID: c.Header.GetClusterId(),
		CreatedAt: c.Header.GetCreatedAt().AsTime().UTC().Format(time.RFC3339), Version: c.Header.GetVersion(), Index: c.Header.GetIndex(),
		Nodes: c.Nodes, Services: c.Services, Tasks: c.Tasks, Users: c.Users, Managers: c.Managers,
		Encrypted: encrypted, Size: size, SHA256: sum,
	}
}
