package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Store is the output of all tasks of a node. Its methods may be called at the same time.
type Store struct {
	dir string

	mu    sync.Mutex
	tasks map[string]*taskLog
}

// Open returns the store in a folder, which is made where it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	return &Store{dir: dir, tasks: make(map[string]*taskLog)}, nil
}

// Writer returns the place to write a task's output to. Attempts of one task follow each other in
// the same files. Options that are unset take their defaults. The writer must be closed.
func (s *Store) Writer(taskID string, options *warrenv1.LogOptions) (*Writer, error) {
	log, err := s.log(taskID)
	if err != nil {
		return nil, fmt.Errorf("write log of task %s: %w", taskID, err)
	}
	w := &Writer{log: log, maxSize: options.GetMaxSizeBytes(), maxFiles: int(options.GetMaxFiles())}
	if w.maxSize <= 0 {
		w.maxSize = DefaultMaxSize
	}
	if w.maxFiles <= 0 {
		w.maxFiles = DefaultMaxFiles
	}
	if err := log.open(); err != nil {
		return nil, fmt.Errorf("write log of task %s: %w", taskID, err)
	}
	return w, nil
}

// End says that no more output will come for a task: followers return once they have read what is
// there, until a new Writer is made.
func (s *Store) End(taskID string) error {
	log, err := s.log(taskID)
	if err != nil {
		return fmt.Errorf("end log of task %s: %w", taskID, err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	log.ended = true
	log.wake()
	return nil
}

// Remove deletes a task's output. Followers return. It succeeds where there is none.
func (s *Store) Remove(taskID string) error {
	dir, err := s.taskDir(taskID)
	if err != nil {
		return fmt.Errorf("remove log of task %s: %w", taskID, err)
	}
	s.mu.Lock()
	log := s.tasks[taskID]
	delete(s.tasks, taskID)
	s.mu.Unlock()
	if log != nil {
		log.remove()
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove log of task %s: %w", taskID, err)
	}
	return nil
}

// List returns the ids of the tasks that have output here, in order.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// log returns the one taskLog of a task, reading from disk what is there of it the first time.
func (s *Store) log(taskID string) (*taskLog, error) {
	dir, err := s.taskDir(taskID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if log := s.tasks[taskID]; log != nil {
		return log, nil
	}
	log := &taskLog{dir: dir}
	if err := log.load(); err != nil {
		return nil, err
	}
	s.tasks[taskID] = log
	return log, nil
}

func (s *Store) taskDir(taskID string) (string, error) {
	if !filepath.IsLocal(taskID) || strings.ContainsRune(taskID, filepath.Separator) || taskID == "." {
		return "", fmt.Errorf("%q cannot be a task's id", taskID)
	}
	return filepath.Join(s.dir, taskID), nil
}

// taskLog is one task's files, and where its readers wait.
//
// Invariant: files first to last exist (an empty log has first == last and perhaps no file yet), only
// last is written, and its first size bytes are whole entries. Readers never look beyond size. The times
// of the entries grow, each is above the one before: by its time readers find a place, merge several logs,
// and tell what they have seen.
type taskLog struct {
	dir string

	mu          sync.Mutex
	first, last int
	size        int64
	latest      time.Time // of the entries so far
	file        *os.File  // last, open for writing while there are writers
	writers     int
	ended       bool
	removed     bool
	changed     chan struct{} // closed at the next change; nil while nobody waits
}

func (l *taskLog) path(number int) string {
	return filepath.Join(l.dir, strconv.Itoa(number)+".log")
}

func (l *taskLog) load() error {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var numbers []int
	for _, e := range entries {
		text, isLog := strings.CutSuffix(e.Name(), ".log")
		if number, err := strconv.Atoi(text); isLog && err == nil && number >= 0 {
			numbers = append(numbers, number)
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	slices.Sort(numbers)
	l.last = numbers[len(numbers)-1]
	l.first = l.last
	for i := len(numbers) - 2; i >= 0 && numbers[i] == l.first-1; i-- {
		l.first--
	}
	for number := l.last; err == nil && number >= l.first && l.latest.IsZero(); number-- {
		var size int64
		size, l.latest, err = wholeSize(l.path(number))
		if number == l.last {
			l.size = size
		}
	}
	return err
}

// stamp returns the time for the next entry, which came at a time: that one, unless the clock was set back
// or two came at once. The caller holds l.mu.
func (l *taskLog) stamp(at time.Time) time.Time {
	at = at.Round(0) // what counts is the time that is written down
	if !at.After(l.latest) {
		at = l.latest.Add(1)
	}
	l.latest = at
	return at
}

// open makes the last file ready for writing: what a crash left torn at its end is cut off.
func (l *taskLog) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return errors.New("the task's output has been removed")
	}
	l.ended = false
	l.writers++
	if l.file != nil {
		return nil
	}
	err := os.MkdirAll(l.dir, 0o700)
	if err == nil {
		l.file, err = os.OpenFile(l.path(l.last), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}
	if err == nil {
		err = l.file.Truncate(l.size)
	}
	if err != nil {
		l.release()
	}
	return err
}

// release gives one writer's claim up. The caller holds l.mu.
func (l *taskLog) release() {
	if l.writers--; l.writers == 0 && l.file != nil {
		l.file.Close() // written with write(2), whose errors have been seen
		l.file = nil
	}
}

// wake tells those who wait that something has changed. The caller holds l.mu.
func (l *taskLog) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

func (l *taskLog) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.removed = true, true
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	l.wake()
}

// state is what a reader needs to know: how far it may read, and what to wait for after that.
type state struct {
	first, last int
	size        int64
	ended       bool
	changed     <-chan struct{}
}

func (l *taskLog) state(wait bool) state {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait && l.changed == nil {
		l.changed = make(chan struct{})
	}
	return state{first: l.first, last: l.last, size: l.size, ended: l.ended, changed: l.changed}
}

// wholeSize returns how many bytes of a file are whole lines, and the time of its last entry, which is zero
// where there is none.
func wholeSize(path string) (size int64, last time.Time, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, last, nil
	}
	if err != nil {
		return 0, last, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, last, err
	}
	err = eachLineBackward(file, info.Size(), func(_, next int64, line []byte) bool {
		size = max(size, next)
		e, ok := parseEntry(line)
		last = e.time
		return !ok
	})
	return size, last, err
}
