package consensus

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

const (
	logCacheEntries   = 64        // entries just written that members read from memory; each may have maxEntryBytes
	snapshotsRetained = 2         // the newest, and one before it should the newest be damaged
	snapshotThreshold = 1 << 16   // entries between snapshots; raft looks every few minutes
	snapshotTrailing  = 1 << 14   // entries kept behind a snapshot, for members that lag
	maxEntryBytes     = 512 << 10 // a group commit is closed at this size; raft copies entries whole
	maxAppendEntries  = 32        // entries in one message to a member, which has two seconds to get there
)

// snapshotTransactions is how many transactions there may be between snapshots, which bounds how long a
// restart takes: a busy manager has several in an entry, and many entries between two looks of raft's.
const snapshotTransactions = 1 << 17

// boltOptions: a second manager on the same folder is told so instead of waiting; the free list is
// rebuilt at start rather than written with every commit.
var boltOptions = &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}

// Timings for members on one network, with a multiplier of 1. A member that has not heard of the leader
// for electionTimeout stands for election; a leader that has not heard of most members for leaderLease
// steps down. That is as late as raft allows (see nudge). Nothing rests on its being earlier, as a leader
// asks before it answers (verify.go); and at 250 ms, on two busy processors with fifteen processes waiting
// for each, one of two managers lost the lead twice in a minute as the other answered too late.
const (
	electionTimeout = 400 * time.Millisecond
	leaderLease     = 390 * time.Millisecond
)

// The multipliers there are: for managers on one network, and for managers on several continents.
const (
	MinMultiplier = 1
	MaxMultiplier = 10
)

// Options says where and as whom a node takes part.
type Options struct {
	// ID is this manager's identifier in the cluster.
	ID string
	// DataDir holds the raft log and its snapshots; it is made if missing.
	DataDir string
	// Transport reaches the other members. A sole member needs none that leaves the process.
	Transport raft.Transport
	// Multiplier stretches raft's timings for slow networks, from MinMultiplier, for a LAN, to
	// MaxMultiplier; 0 stands for the first. All members should have the same.
	Multiplier int
	// Logger takes raft's own messages.
	Logger *slog.Logger
	// Disk, if set, is used instead of files in DataDir. It is closed with the node.
	Disk *Disk
	// Wrote, if set, is told of each entry of the log that this node has written as the leader: how many transactions were in
	// it, how many of these were refused, and how long it took until it was applied, or given up for the error.
	Wrote func(transactions, refused int, took time.Duration, err error)
	// Tune, if set, adjusts raft's timings before the start.
	Tune func(*raft.Config)
}

// Validate tells what is wrong with the multiplier.
func (o Options) Validate() error {
	if o.Multiplier != 0 && (o.Multiplier < MinMultiplier || o.Multiplier > MaxMultiplier) {
		return fmt.Errorf("the raft multiplier is %d: it must be from %d, for managers on one network, to %d", o.Multiplier, MinMultiplier, MaxMultiplier)
	}
	return nil
}

// stretch returns what a time on a LAN is with the multiplier.
func (o Options) stretch(onLAN time.Duration) time.Duration {
	return time.Duration(max(o.Multiplier, MinMultiplier)) * onLAN
}

func (o Options) config(logger hclog.Logger, lead chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.ID)
	c.Logger = logger
	c.LogLevel = ""
	c.NotifyCh = lead
	c.HeartbeatTimeout, c.ElectionTimeout = o.stretch(electionTimeout), o.stretch(electionTimeout)
	c.LeaderLeaseTimeout = o.stretch(leaderLease)
	c.MaxAppendEntries = maxAppendEntries
	c.SnapshotThreshold = snapshotThreshold
	c.TrailingLogs = snapshotTrailing
	c.ShutdownOnRemove = false // what a manager does that was removed is for others to say
	c.NoLegacyTelemetry = true
	if o.Tune != nil {
		o.Tune(c)
	}
	return c
}
