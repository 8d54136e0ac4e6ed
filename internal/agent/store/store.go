package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ErrInUse tells that another agent has the data folder open.
var ErrInUse = errors.New("another agent uses this data folder")

const (
	lockTimeout = 500 * time.Millisecond // long enough for an agent that is just leaving
	retryDelay  = time.Second            // before a write is tried again that the disk refused
	noteDelay   = time.Second            // how long a note may wait for company
)

// The file's buckets. Keys are task ids, but for membership, whose one key stands below, and for network, whose
// keys are the overlay's.
var (
	membershipBucket = []byte("membership")
	assignmentBucket = []byte("assignments")
	statusBucket     = []byte("statuses")
	restartBucket    = []byte("restarts")
	leaseBucket      = []byte("leases")
	networkBucket    = []byte("network")
	buckets          = [][]byte{membershipBucket, assignmentBucket, statusBucket, restartBucket, leaseBucket, networkBucket}

	managersKey = []byte("managers")

	// identityBucket held a node id, which agents chose for themselves before they had certificates.
	identityBucket = []byte("identity")
)

// Task is what the store keeps of one task.
type Task struct {
	// Assignment is the task as the manager last gave it.
	Assignment *warrenv1.Assignment
	// Progress is how far it had come.
	Progress Progress
}

// Progress is how far a task has come on this node.
type Progress struct {
	// Status is nil before the agent has begun with the task.
	Status *warrenv1.TaskStatus
	// Restarts counts the restarts in place since the program last ran for a whole window.
	Restarts uint32
}

// Store is an agent's durable state. Its messages belong to it once given: they must not be changed.
type Store struct {
	db     *bbolt.DB
	logger *slog.Logger

	mu       sync.Mutex
	managers []string
	pending  *Commit     // what the next write to the disk takes with it; nil if nothing waits
	later    *time.Timer // wakes the writer for notes; nil if no note waits alone
	wake     chan struct{}
	closing  chan struct{}
	done     sync.WaitGroup
}

// Open opens the store in the folder dir, which is made if missing. It fails with ErrInUse if another
// agent has it open.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	path := filepath.Join(dir, "agent.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        lockTimeout,
		NoFreelistSync: true, // rebuilt at start instead of written with every commit
		FreelistType:   bbolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w: stop it, or give this one its own --data-dir", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &Store{db: db, logger: logger, wake: make(chan struct{}, 1), closing: make(chan struct{})}
	if err := s.prepare(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.done.Go(s.run)
	return s, nil
}

func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if recorded := tx.Bucket(membershipBucket).Get(managersKey); len(recorded) > 0 {
			s.managers = strings.Split(string(recorded), "\n")
		}
		if tx.Bucket(identityBucket) == nil {
			return nil
		}
		s.logger.Warn("the node's id now comes with its certificate: it must join its cluster to get one, as a new node; its tasks run on until then")
		return tx.DeleteBucket(identityBucket)
	})
}

// Managers is where the cluster's managers are, as last recorded.
func (s *Store) Managers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.managers)
}

// RecordManagers records where the cluster's managers are, host:port, and returns when that is durable.
func (s *Store) RecordManagers(addrs []string) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(membershipBucket).Put(managersKey, []byte(strings.Join(addrs, "\n")))
	})
	if err != nil {
		return fmt.Errorf("record the managers' addresses: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managers = slices.Clone(addrs)
	return nil
}

// Reset forgets everything, and returns when that is durable. What waits to be written is of tasks that
// are gone, and is dropped.
func (s *Store) Reset() error {
	if commit := s.take(); commit != nil {
		close(commit.done)
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget the node's state: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managers = nil
	return nil
}

// Tasks reads all tasks, by id.
func (s *Store) Tasks() (map[string]Task, error) {
	tasks := map[string]Task{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		statuses, restarts := tx.Bucket(statusBucket), tx.Bucket(restartBucket)
		return tx.Bucket(assignmentBucket).ForEach(func(key, value []byte) error {
			task := Task{Assignment: &warrenv1.Assignment{}}
			if err := proto.Unmarshal(value, task.Assignment); err != nil {
				return fmt.Errorf("assignment %s: %w", key, err)
			}
			if value := statuses.Get(key); value != nil {
				task.Progress.Status = &warrenv1.TaskStatus{}
				if err := proto.Unmarshal(value, task.Progress.Status); err != nil {
					return fmt.Errorf("status of task %s: %w", key, err)
				}
			}
			if value := restarts.Get(key); len(value) == 4 {
				task.Progress.Restarts = binary.BigEndian.Uint32(value)
			}
			tasks[string(key)] = task
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the tasks: %w", err)
	}
	return tasks, nil
}

// Assign records assignments as the manager gave them.
func (s *Store) Assign(assignments ...*warrenv1.Assignment) *Commit {
	return s.queue(0, func(c *Commit) {
		for _, a := range assignments {
			c.assignments[a.GetTask().GetMeta().GetId()] = a
		}
	})
}

// Advance records how far a task has come. The record of a task that is not assigned goes with the
// next Forget.
func (s *Store) Advance(task string, progress Progress) *Commit {
	return s.queue(0, func(c *Commit) { c.progress[task] = progress })
}

// Note records how far a task has come where that can be found out again from its container: it
// goes with the next write, or within a second, so that a burst of starts is not a burst of syncs.
func (s *Store) Note(task string, progress Progress) *Commit {
	return s.queue(noteDelay, func(c *Commit) { c.progress[task] = progress })
}

// Forget drops all that is recorded of a task.
func (s *Store) Forget(task string) *Commit {
	return s.queue(0, func(c *Commit) {
		c.assignments[task] = nil
		c.progress[task] = Progress{}
	})
}

// Close writes what waits and closes the file.
func (s *Store) Close() error {
	close(s.closing)
	s.done.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}

// queue adds to the pending commit, which is to be written within the delay.
func (s *Store) queue(delay time.Duration, add func(*Commit)) *Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		s.pending = &Commit{
			assignments: map[string]*warrenv1.Assignment{},
			progress:    map[string]Progress{},
			leases:      map[string]netip.Addr{},
			done:        make(chan struct{}),
		}
	}
	add(s.pending)
	switch {
	case delay == 0:
		s.wakeWriter()
	case s.later == nil:
		s.later = time.AfterFunc(delay, s.wakeWriter)
	}
	return s.pending
}

func (s *Store) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// take returns what waits to be written, nil if nothing does.
func (s *Store) take() *Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	commit := s.pending
	s.pending = nil
	if s.later != nil {
		s.later.Stop()
		s.later = nil
	}
	return commit
}

// Commit is a group of writes on their way to the disk.
type Commit struct {
	assignments map[string]*warrenv1.Assignment // nil: to be deleted
	progress    map[string]Progress             // without status: to be deleted
	leases      map[string]netip.Addr           // zero: to be deleted
	done        chan struct{}                   // closed when all is durable
}

// Wait returns when the writes are durable, or with the context's error when that ends first.
func (c *Commit) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes what has gathered, again and again.
func (s *Store) run() {
	for {
		closing := false
		select {
		case <-s.wake:
		case <-s.closing:
			closing = true
		}
		if commit := s.take(); commit != nil && !s.write(commit) || closing {
			return
		}
	}
}

// write makes a commit durable, however often the disk refuses it. It gives up, with false, only when
// the store is being closed.
func (s *Store) write(commit *Commit) bool {
	for tries := 1; ; tries++ {
		err := s.db.Update(commit.apply)
		if err == nil {
			if tries > 1 {
				s.logger.Info("the agent's state can be written again")
			}
			close(commit.done)
			return true
		}
		if tries == 1 {
			s.logger.Error("cannot write the agent's state; trying again every second", "error", err)
		}
		select {
		case <-time.After(retryDelay):
		case <-s.closing:
			return false
		}
	}
}

func (c *Commit) apply(tx *bbolt.Tx) error {
	bucket := tx.Bucket(assignmentBucket)
	for task, assignment := range c.assignments {
		if assignment == nil {
			if err := bucket.Delete([]byte(task)); err != nil {
				return err
			}
			continue
		}
		if err := put(bucket, task, assignment); err != nil {
			return err
		}
	}
	leases := tx.Bucket(leaseBucket)
	for task, addr := range c.leases {
		err := leases.Delete([]byte(task))
		if addr.IsValid() {
			err = leases.Put([]byte(task), addr.AsSlice())
		}
		if err != nil {
			return err
		}
	}
	statuses, restarts := tx.Bucket(statusBucket), tx.Bucket(restartBucket)
	for task, progress := range c.progress {
		if progress.Status == nil {
			if err := errors.Join(statuses.Delete([]byte(task)), restarts.Delete([]byte(task))); err != nil {
				return err
			}
			continue
		}
		if err := put(statuses, task, progress.Status); err != nil {
			return err
		}
		if err := restarts.Put([]byte(task), binary.BigEndian.AppendUint32(nil, progress.Restarts)); err != nil {
			return err
		}
	}
	return nil
}

func put(bucket *bbolt.Bucket, key string, message proto.Message) error {
	value, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	return bucket.Put([]byte(key), value)
}
